"""C · Coherence."""
