"""The content-addressed storage that stock clients upload to, and read very large files from."""
