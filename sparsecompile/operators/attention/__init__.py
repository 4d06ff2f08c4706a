"""Attention: `softmax(q @ k.T * scale + mask) @ v` over the kept tiles of its mask."""
