"""Which format a weight is found to be in."""
