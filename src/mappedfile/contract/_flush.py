"""F · Flush."""
