"""What a request may cost: reserved before it is sent, settled on what it came to."""
