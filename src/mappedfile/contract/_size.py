"""S · Size."""
