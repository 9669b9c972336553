"""The deep look at what was too large or too hostile to be read while somebody waited."""
