"""One entry for each operator."""
