"""Scores, calibration and groups of tokens."""
