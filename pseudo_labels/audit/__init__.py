"""What a label store holds, and whether it is in order: as words for the terminal, and as one HTML page."""
