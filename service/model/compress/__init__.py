"""The run-time side of modules whose weights differ: low-rank, quantised, gated."""
