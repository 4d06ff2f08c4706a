"""Scaled dot-product attention: queries look at the keys that a mask keeps."""
