"""C++ for CPUs: templates, fragments, the compiler, the cache folder and the native op runtime."""
