"""The laws of mask patterns, and patterns to test them with."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import strategies as st
from torch import Tensor

from sparsecompile.errors import OptionError
from sparsecompile.masks.block_mask import BlockMask
from sparsecompile.masks.counts import share
from sparsecompile.masks.documents import Documents
from sparsecompile.masks.grid import FULL, NONE, Grid
from sparsecompile.masks.padding import Padding
from sparsecompile.masks.pattern import MaskPattern
from sparsecompile.masks.per_head import PerHead
from sparsecompile.masks.text import pattern_of
from sparsecompile.registry import Registry

LARGEST = 300
"""Queries and keys of the matrices."""
_HEADS = 2


def grids() -> st.SearchStrategy[Grid]:
    """Matrices of few and of many queries, at any position, that end within tiles."""
    sizes = st.one_of(st.integers(1, 20), st.integers(1, LARGEST), st.sampled_from((64, 128, 192)))
    offsets = st.sampled_from((0, 0, 1, 37, 64, 1000))
    return st.builds(Grid, sizes, sizes, offsets, offsets)


@st.composite
def patterns(draw: st.DrawFn, registry: Registry, grid: Grid) -> MaskPattern:
    """Patterns of every family of a registry, with any parameters, and compositions of them."""
    families = [p for p in registry.all(MaskPattern) if not isinstance(p, PerHead)]
    one = st.sampled_from(families).flatmap(lambda family: _of_family(family, grid))
    several = st.lists(one, min_size=_HEADS, max_size=_HEADS).map(lambda each: PerHead(tuple(each)))
    leaf = st.one_of(one, one, several)
    return draw(
        st.recursive(
            leaf,
            lambda parts: st.one_of(
                st.tuples(parts, parts).map(lambda pair: pair[0] & pair[1]),
                st.tuples(parts, parts).map(lambda pair: pair[0] | pair[1]),
            ),
            max_leaves=3,
        )
    )


def _of_family(pattern: MaskPattern, grid: Grid) -> st.SearchStrategy[MaskPattern]:
    """With other parameters where these are integers, or tables of positions."""
    end = max(grid.offset + grid.q, grid.kv_offset + grid.kv)
    if isinstance(pattern, Documents):
        tables = st.builds(_table, st.integers(0, 99), st.just(end), st.just(4))
        return st.builds(Documents, tables, st.one_of(st.none(), tables))
    if isinstance(pattern, Padding):
        tables = st.builds(_table, st.integers(0, 99), st.just(end), st.just(2))
        return tables.map(lambda table: Padding(table.bool()))
    sizes = st.one_of(st.integers(1, 9), st.integers(1, LARGEST), st.sampled_from((64, 65)))
    names = [field.name for field in dataclasses.fields(pattern)]  # type: ignore[arg-type]
    if all(isinstance(getattr(pattern, name), int) for name in names):
        return st.fixed_dictionaries(dict.fromkeys(names, sizes)).map(
            lambda values: dataclasses.replace(pattern, **values)  # type: ignore[type-var]
        )
    return st.just(pattern)


def _table(seed: int, positions: int, values: int) -> Tensor:
    """`[1 or 2, positions]` integers, in runs."""
    generator = torch.Generator().manual_seed(seed)
    count = 1 + positions // (1 + seed)
    drawn = torch.randint(0, values, (1 + seed % 2, count), generator=generator)
    return drawn.repeat_interleave(1 + seed, 1)[:, :positions]


def check_pattern(pattern: MaskPattern, grid: Grid, registry: Registry) -> None:
    """A pattern keeps the tiles that its predicate keeps.

    Of no tile it knows something wrong, its intervals are the predicate's, the share is the count,
    and its text is read back.

    Raises:
        AssertionError: a law does not hold.
    """
    assert pattern_of(str(pattern), registry) == pattern, f"{pattern} is read as another"
    try:
        pattern.check(grid)
    except OptionError:
        return
    shape = (pattern.batch, pattern.heads, grid.q, grid.kv)
    dense = pattern.keeps(*grid.places(*shape[:2])).expand(shape)
    mask = pattern.blocks(grid.q, grid.kv, offset=grid.offset, kv_offset=grid.kv_offset)
    expected = BlockMask.of(dense)
    assert mask.shape == expected.shape
    for name, tensor in expected.tensors().items():
        found = mask.tensors()[name]
        assert found.dtype == tensor.dtype, f"{pattern}: {name} is {found.dtype}"
        assert torch.equal(found, tensor), f"{pattern}: {name} is {found}, not {tensor}"
    assert share(mask) == float(dense.double().mean()), f"{pattern}: share {share(mask)}"
    _check_tiles(pattern, grid, dense)
    intervals = pattern.intervals(grid)
    if intervals is not None:
        kv = torch.arange(grid.kv)
        inside = (intervals.low[..., None] <= kv) & (kv < intervals.high[..., None])
        assert torch.equal(inside.expand(shape), dense), f"{pattern}: intervals {intervals}"


def _check_tiles(pattern: MaskPattern, grid: Grid, dense: Tensor) -> None:
    known = pattern.tiles(grid).expand(*dense.shape[:2], -1, -1)
    places = dense[:, :, (grid.queries - grid.offset)][:, :, :, :, grid.keys - grid.kv_offset]
    assert not bool((places.any(5).any(3) & (known == NONE)).any()), f"{pattern}: kept in NONE"
    assert not bool((~places.all(5).all(3) & (known == FULL)).any()), f"{pattern}: cut in FULL"
