"""Benchmarks, metrics and the one path by which every model is evaluated."""
