"""The model registry: the hub protocol with model policy."""
