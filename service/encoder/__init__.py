"""The model: its contract, its session, and the batching of concurrent requests."""
