"""How a model is to be loaded, and what that takes: arithmetic over a file's header."""
