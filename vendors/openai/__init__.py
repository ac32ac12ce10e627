"""The OpenAI API, and the many hosts that speak it: each is a row of ``presets``."""
