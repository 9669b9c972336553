"""Models of a running site: what waits, what is served, and who says so."""
