"""Test images that show what training images show, found by features: what sha256 and difference hashes cannot see."""
