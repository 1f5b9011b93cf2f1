"""The queue, the batcher (pure policy), the runner (the one thread that owns the device)."""
