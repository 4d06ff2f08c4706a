"""Where passes and code generation meet: specs, targets, templates, problems and ops."""
