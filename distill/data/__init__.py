"""What training reads: examples, cached pixels, the split, and what people said of images."""
