"""The pages in a browser: one application over the services' HTTP APIs, and no HTML elsewhere."""
