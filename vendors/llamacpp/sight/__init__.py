"""Images: decoded, checked, and turned into what a model sees."""
