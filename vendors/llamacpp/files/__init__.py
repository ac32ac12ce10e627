"""GGUF files and saved states, read as strangers' files are: every number is checked."""
