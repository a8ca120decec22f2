"""Test images that show what training images show, found by features: what sha256 and difference hashes cannot see."""

NEAR = 0.7
"""Cosine above which two images are near, unless told otherwise: BIQ2021's own groups were made by it, with the same
kind of features."""
