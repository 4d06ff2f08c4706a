"""What runs it: one peer a file."""
