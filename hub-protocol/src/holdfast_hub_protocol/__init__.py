"""The Hugging Face Hub wire protocol over a content-addressed store."""
