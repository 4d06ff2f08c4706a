"""Benchmarks that users can run: `sparsecompile bench`."""
