"""Predictive checks and bands of uniform values."""
