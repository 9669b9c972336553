"""Large files over the git LFS protocol: batch, upload in one piece or in parts, verify, list."""
