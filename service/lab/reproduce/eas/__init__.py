"""Early Attentive Sparsification (arXiv 2506.15912): which frames to keep, by attention received.

The walk: `data` (recordings) → `plan` (what is run, and how long it takes) → `experiments` (runs
it) → `results` (what is asked of the figures) → `claims`, `checks` (sentences) → `plots`, `report`.
"""
