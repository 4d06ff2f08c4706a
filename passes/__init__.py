"""Built-in passes, one file each; they use public sparsecompile names only."""
