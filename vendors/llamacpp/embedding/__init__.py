"""Models that make vectors or scores instead of text."""
