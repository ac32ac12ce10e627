"""How models write calls and thoughts, and how those are read back."""
