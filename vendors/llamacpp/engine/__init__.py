"""Many requests on one model at once, step by step, and the thread that steps."""
