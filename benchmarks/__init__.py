"""The speed of mappedfile, as ratios to the standard library: ``python -m benchmarks``."""
