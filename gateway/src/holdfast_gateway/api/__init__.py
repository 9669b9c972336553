"""What clients speak: the endpoints, their bodies, and how each API says no."""
