"""How Triton kernels read the built-in structures and codecs, one file each."""
