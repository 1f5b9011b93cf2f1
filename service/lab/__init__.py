"""Offline: synthesis, training, evaluation. May import everything; nobody imports it."""
