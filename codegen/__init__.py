"""Code generation: from a KernelSpec to a kernel that is built, loaded and known to torch."""
