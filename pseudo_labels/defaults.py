"""Default values that a command, a function and a recipe share; nothing is imported here, so that all of them can."""

NEAR_DUPLICATE_COSINE = 0.7
"""Cosine of features above which two images are near duplicates: BIQ2021's own groups were made by it, with the same
kind of features."""
