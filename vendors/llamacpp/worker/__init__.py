"""The engine in a child process, which cannot take this one down."""
