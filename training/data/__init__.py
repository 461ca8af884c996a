"""Textures, scenes, the simulator and the pairs made from them."""
