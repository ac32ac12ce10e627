"""What touches llama.cpp itself: its library, its objects, its memory."""
