"""Ahead of time: what the compilers make of Triton kernels, with no GPU at hand."""
