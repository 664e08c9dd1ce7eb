"""I · Input."""
