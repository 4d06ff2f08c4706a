"""Choosing among candidates: what was measured, how, and what follows from it."""
