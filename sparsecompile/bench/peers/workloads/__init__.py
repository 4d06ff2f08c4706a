"""What is run: one workload a file."""
