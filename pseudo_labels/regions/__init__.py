"""Regions of the images of a pool: masks, where they come from, the manifest of a pool, and labels of regions."""
