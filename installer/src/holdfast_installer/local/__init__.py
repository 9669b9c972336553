"""The embedded form: a whole site as ordinary processes of one user on loopback."""
