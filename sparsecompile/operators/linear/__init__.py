"""`y = epilogue(a(x) @ W.T + bias)`."""
