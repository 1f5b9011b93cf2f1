"""Winnow against its peers: the same weights, the same recordings, in turns, words beside times."""
