"""Triton for GPUs: templates, fragments, generated modules and their launch."""
