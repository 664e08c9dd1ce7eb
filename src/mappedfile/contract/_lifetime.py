"""L · Lifetime: closing while mapped."""
