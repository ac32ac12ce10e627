"""What this machine has, what is used of it, and who keeps to it."""
