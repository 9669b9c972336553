"""What runs on a site's hosts now, which models they serve, and why one is not served."""
