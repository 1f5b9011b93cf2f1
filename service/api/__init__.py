"""The HTTP rooms: /transcribe, OpenAI-compatible routes, operations."""
