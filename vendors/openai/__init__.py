"""The chat-completions dialect of the OpenAI API, and the many hosts that speak it."""
