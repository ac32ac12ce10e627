"""GGUF files that other programs have put on this machine: where they lie, and what they hold."""
