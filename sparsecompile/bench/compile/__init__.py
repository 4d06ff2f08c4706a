"""`sparsecompile bench compile`: what compiling a model takes, part by part, beside Inductor."""
