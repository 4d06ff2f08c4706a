"""Built-in structures and decompositions, a file each, registered by the package's own plug-in."""
