"""Models made smaller once, from what they compute on real recordings."""
