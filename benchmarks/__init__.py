"""How fast mappedfile is, as ratios to the standard library in the same run: ``python -m
benchmarks``."""
