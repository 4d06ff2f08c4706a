"""Built-in structures, one file each, registered by the package's own plug-in."""
