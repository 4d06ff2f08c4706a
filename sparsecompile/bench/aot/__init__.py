"""Kernels of a registry or a model looked at with no GPU: a tool, which no compilation imports."""
