"""Layer 2: losses, training, evaluation, report, recipes and the command line."""
