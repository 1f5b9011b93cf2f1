"""Encoders that are read by CTC, of attention alone and of convolution and attention: what dropped
frames (arXiv 2506.15912) and few bits (arXiv 2311.02772) do to them.

The walk: `letters` (text to letters) → `model` (Whisper's encoder and modules between) → `train` →
`thinning` and `rounding` (what is done to it) → `collapse` (frames to text) → `study` (runs it) →
`claims`, `report`.
"""
