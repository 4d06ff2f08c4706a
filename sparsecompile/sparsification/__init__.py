"""Sparsification: models that are worth packing, made from dense ones before compilation."""
