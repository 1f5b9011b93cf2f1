"""Winnow: speech to text with early attentive sparsification."""

__version__ = "0.1.0"
