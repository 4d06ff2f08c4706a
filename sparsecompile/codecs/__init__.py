"""Built-in codecs, one file each, registered by the package's own plug-in."""
