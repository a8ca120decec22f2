"""One training loop for students and teachers: settings, batches, losses, checkpoints, and what learns."""
