"""Choosing among candidates: by what was measured, or by the cost model.

What decides (`promising`, `choose`, `tuner`) and what remembers (`measurements`) know nothing of
each other: `timings` looks up, or measures and remembers, what is decided by.
"""
