"""How C++ kernels read the built-in structures and codecs, one file each."""
