"""Attention or Convolution (arXiv 2311.02772): what few bits cost, by kind of module."""
