"""Pools of images that are made of other images: damaged copies, crops."""
