"""One folder for each kind of node that gets kernels."""
