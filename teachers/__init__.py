"""Layer 1: heavy image-quality teachers and the loop that labels a pool with them."""
