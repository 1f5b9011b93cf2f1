"""One request in the engine: who is taken, its windows, and what is decoded again."""
