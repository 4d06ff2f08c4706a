"""Attention on GPUs: a template over the kept tiles of a mask, and the ops that list these."""
