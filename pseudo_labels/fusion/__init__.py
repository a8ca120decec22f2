"""Many teachers as one: scales calibrated on ratings, scores weighted by expected error, rows kept or dropped.

``fuse.fuse`` makes one label store of several; ``ensemble.Ensemble`` is what it fitted, for scores as they come.
"""
