"""The map as tiles: cut from sources, kept in one SQLite file, searched by embedding."""
