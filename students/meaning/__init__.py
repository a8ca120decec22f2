"""What a score of one model means: its place in a population, an interval, one's own scale. Numpy alone."""
