"""Benchmarks: speed beside hand-written code, and prediction beside honest references."""
