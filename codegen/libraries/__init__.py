"""Library calls that read a layout of their own, candidates beside the generated kernels."""
