"""What judges a model: search, metrics, both gallery protocols, robustness, and the sheet of failures."""
