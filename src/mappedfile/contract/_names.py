"""N · Names."""
