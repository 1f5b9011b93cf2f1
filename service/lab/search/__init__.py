"""Which profiles are worth serving: many on few recordings, the better ones on more."""
