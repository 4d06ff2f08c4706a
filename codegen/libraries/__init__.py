"""Library calls, candidates beside the generated kernels."""
