"""Methods of sparsification, one a file."""
