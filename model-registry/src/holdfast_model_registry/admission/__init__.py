"""What may come in, what is held back, and what is missing before it may be approved."""
