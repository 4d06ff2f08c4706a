"""The graph under change: the only code that touches torch.fx."""
