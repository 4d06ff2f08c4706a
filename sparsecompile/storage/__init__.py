"""Packed weights that stay: in a model, and in files."""
