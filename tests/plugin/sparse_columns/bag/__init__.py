"""`bag`: an operator of this package's own, sums of rows of a packed table."""
