"""The host that supervises a llama-server program, or the server of the ``xllamacpp`` wheel."""
