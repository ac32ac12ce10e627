"""What all child processes have in common: their start, their last words, their end."""
