"""Textures, scenes, the virtual drone over them, and the pairs that it makes."""
