"""Test images that show the scene of a training image, detected by features where file and picture hashes differ."""
