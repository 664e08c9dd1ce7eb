"""T · Truncation by others, and device errors."""
