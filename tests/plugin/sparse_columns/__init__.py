"""A plug-in package: column-pruned weights, a template of its own for them, and a pass."""
