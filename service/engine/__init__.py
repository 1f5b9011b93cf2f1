"""The queue, the schedule (pure policy), the loop (the one thread that owns the device)."""
