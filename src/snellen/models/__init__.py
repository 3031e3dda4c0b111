"""Models of all kinds."""
