"""Many models on one benchmark: a table for people, what each costs, and two plots (``pocketiqa compare``)."""
