"""The gallery file: SQLite, the truth."""
