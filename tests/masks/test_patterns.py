"""Mask patterns: laws over the registry, texts, and what they refuse."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sparsecompile.registry import default_registry
from sparsecompile.testing.mask_laws import check_pattern, grids, patterns


@given(st.data())
def test_laws(data: st.DataObject) -> None:
    registry = default_registry()
    grid = data.draw(grids())
    check_pattern(data.draw(patterns(registry, grid)), grid, registry)
