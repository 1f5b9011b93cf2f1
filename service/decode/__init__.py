"""Continuous decoding: windows take rows, a step is one token for every row, hypotheses leave.

Shape suffixes are those of `service.model`.
"""
