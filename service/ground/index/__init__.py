"""Vector indexes: derived from the store, one protocol."""
