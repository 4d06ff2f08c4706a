"""Attention over the kept tiles of a mask."""
