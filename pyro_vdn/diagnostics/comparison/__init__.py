"""Comparison of fits, parts of their uncertainty, and trends."""
