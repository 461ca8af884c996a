"""From sources to the ground: tiles made, imports in the background, a gallery embedded again."""
