"""Correlation, logistic mapping, bootstrap and agreement: the only ones of the project, numpy and scipy alone."""
