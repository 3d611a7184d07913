"""Activation functions, by family; the names are those of the functions."""
