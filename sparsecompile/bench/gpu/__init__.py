"""`sparsecompile bench gpu`: packed linears on a GPU, checked, then timed against dense."""
