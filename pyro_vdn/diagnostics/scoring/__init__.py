"""Proper scores, quantiles and intervals of predictions of numbers."""
