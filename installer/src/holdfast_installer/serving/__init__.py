"""The life of what serves: more and fewer replicas, other revisions, and no broken request."""
