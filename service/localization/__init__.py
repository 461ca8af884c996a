"""From an embedding to a position with a confidence and an accuracy."""
