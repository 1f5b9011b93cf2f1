"""A hypothesis to its words with their times, on the clock of the frames that were kept."""
