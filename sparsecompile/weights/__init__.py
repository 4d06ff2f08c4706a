"""Live tensors behind a graph, what they hold, and what was made of them."""
