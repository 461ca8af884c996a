"""Maps embedded by many processes or machines, in shards that are put together in a gallery."""
