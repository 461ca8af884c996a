"""A made-up town seen from the air, drawn from a seed: the demo area."""
