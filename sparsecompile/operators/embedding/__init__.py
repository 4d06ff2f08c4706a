"""Rows of a packed table: `y = W[ids]`."""
