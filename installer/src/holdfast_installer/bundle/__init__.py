"""What crosses the gap: locked, built, signed and verified as one content-addressed directory."""
