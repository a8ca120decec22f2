"""What ``pocketiqa score`` and its kin do: inputs, rows, what rows mean, and what is done with them. No torch."""
