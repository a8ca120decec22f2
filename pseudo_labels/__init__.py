"""Layer 0: image decoding, pools, distortions and the pseudo-label store. Imports nothing of ours and no torch."""
