"""Timestamps, stitching and output formats."""
