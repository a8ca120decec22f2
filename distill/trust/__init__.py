"""What a model's scores are worth, tested without people: ``pocketiqa trust``."""
