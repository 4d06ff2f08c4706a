"""The tiles of what is asked for are those of the definition, for any pattern and own mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from sparsecompile import OptionError
from sparsecompile.masks.block_mask import BlockMask
from sparsecompile.masks.documents import Documents
from sparsecompile.masks.given import Given
from sparsecompile.masks.grid import NONE, Grid
from sparsecompile.masks.padding import Padding
from sparsecompile.masks.pattern import Composed, MaskPattern
from sparsecompile.masks.per_head import PerHead
from sparsecompile.masks.text import pattern_of
from sparsecompile.operators.attention.asked import asked_for, ends_of, named, remember
from sparsecompile.operators.attention.asked_tiles import (
    asked_interval_tiles,
    asked_tiles,
    row_tiles,
)
from sparsecompile.operators.attention.keys import first_position, kept_keys
from sparsecompile.operators.attention.node import attention
from sparsecompile.registry import default_registry
from sparsecompile.testing.mask_laws import check_pattern, grids, patterns

HEADS = 2


@pytest.fixture(autouse=True, scope="module")
def native() -> None:
    from sparsecompile.codegen.cpp.native import load_native

    load_native()


def has_table(pattern: MaskPattern) -> bool:
    if isinstance(pattern, Composed):
        return any(map(has_table, pattern.parts))
    return isinstance(pattern, Documents | Padding)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor | None, bool, str]:
    """q, k, an own mask, whether it is `is_causal` instead, and the name of a pattern."""
    grid = draw(grids())
    everything = patterns(default_registry(), grid).filter(lambda pattern: not has_table(pattern))
    pattern = draw(everything)
    batch = draw(st.integers(1, 2))
    q, k = (torch.randn(batch, HEADS, n, 8) for n in (grid.q, grid.kv))
    kind = draw(st.sampled_from(("none", "causal", "cache", "random")))
    mask = None
    if kind == "cache":
        # As of a static cache: nothing behind the last query, which is somewhere.
        last = draw(st.integers(0, grid.kv - 1))
        position = last - grid.q + 1 + torch.arange(grid.q)
        mask = (torch.arange(grid.kv) <= position[:, None])[None, None]
    if kind == "random":
        generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
        mask = torch.rand(batch, 1, grid.q, grid.kv, generator=generator) < 0.5
    return q, k, mask, kind == "causal", remember(pattern)


def dense(layout: Tensor) -> Tensor:
    return BlockMask.of_layout(layout).dense()


@given(cases())
def test_every_way_is_the_definition(
    case: tuple[Tensor, Tensor, Tensor | None, bool, str],
) -> None:
    q, k, mask, causal, name = case
    expected = kept_keys(q, k, mask, causal, name)
    own = mask if mask is not None else torch.ones(1, 1, q.shape[2], k.shape[2]).bool().tril()
    blocks = BlockMask.of(own).layout() if mask is not None or causal else None
    found = [asked_tiles(q, k, blocks, name), row_tiles(q, k, mask, causal, name)]
    if mask is None and ends_of(named(name), torch.zeros(1, dtype=torch.int64)) is not None:
        found.append(asked_interval_tiles(q, k, None, None, None, None, None, causal, name))
    for layout in found:
        assert torch.equal(dense(layout).expand_as(expected), expected)


@given(st.data())
def test_own_intervals_and_those_of_a_pattern(data: st.DataObject) -> None:
    name = remember(asked_for(data.draw(st.sampled_from(("window(9)", "around(70) & causal")))))
    queries, keys, batch = (data.draw(st.integers(1, n)) for n in (150, 150, 2))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))

    def drawn(least: int, most: int, *shape: int) -> Tensor:
        return torch.randint(least, most, shape, generator=generator)

    low, high = (drawn(-5, keys + 5, batch, 1, queries).int() for _ in range(2))
    keep = drawn(0, 2, batch, keys).bool()
    ids = (
        [drawn(0, 3, 1, queries), drawn(0, 3, 1, keys)] if data.draw(st.booleans()) else [None] * 2
    )
    q, k = (torch.randn(batch, HEADS, n, 8) for n in (queries, keys))
    kv = torch.arange(keys)
    own = (low[..., None] <= kv) & (kv < high[..., None]) & keep[:, None, None]
    if ids[0] is not None and ids[1] is not None:
        own = own & (ids[0][:, None, :, None] == ids[1][:, None, None])
    found = dense(asked_interval_tiles(q, k, low, high, keep, *ids, False, name))
    expected = kept_keys(q, k, own, False, name)
    assert torch.equal(found.expand_as(expected), expected)


@given(st.data())
def test_a_block_mask_is_a_pattern(data: st.DataObject) -> None:
    """And its layout is read back."""
    grid = data.draw(grids())
    pattern = data.draw(patterns(default_registry(), grid))
    try:
        pattern.check(grid)
    except OptionError:
        return
    mask = pattern.blocks(grid.q, grid.kv, offset=grid.offset, kv_offset=grid.kv_offset)
    again = Given(BlockMask.of_layout(mask.layout()), grid.offset)
    moved = Grid(grid.q, grid.kv, grid.offset)
    for b, h in ((mask.shape[0], mask.shape[1]), (1, 1)):
        dense = again.keeps(*moved.places(b, h))
        assert torch.equal(dense, mask.dense()[:b, :h])
    assert bool((again.tiles(moved) != NONE).any()) == bool(mask.dense().any())


def test_where_the_first_query_is() -> None:
    last = torch.tensor([[True, True, False, True, False]])
    assert first_position(last, 1) == 3
    assert first_position(last, 3) == 1
    assert first_position(last, 9) == 0
    # Of several entries the last key: shorter ones are padded.
    assert first_position(torch.tensor([[True, False], [True, True]]), 1) == 1


def test_decoding_is_a_row_of_a_long_prefill() -> None:
    """With any cache: the keys that a query attends to do not depend on how many come with it."""
    name = remember(asked_for("window(5) + strided(7) + global(2)"))
    keys, q, k = 40, torch.randn(1, 1, 40, 8), torch.randn(1, 1, 40, 8)
    whole = kept_keys(q, k, None, True, name)
    for last in range(1, keys):
        dynamic = kept_keys(q[:, :, :1], k[:, :, : last + 1], None, False, name)
        mask = (torch.arange(keys) <= last)[None, None, None]
        static = kept_keys(q[:, :, :1], k, mask, False, name)
        assert torch.equal(dynamic[0, 0, 0], whole[0, 0, last, : last + 1])
        assert torch.equal(static[0, 0, 0], whole[0, 0, last])


def test_predicates_of_one_name_are_two() -> None:
    names = [remember(asked_for(lambda b, h, q, kv, n=n: kv >= q - n)) for n in (1, 3)]
    q = torch.randn(2, 2, 70, 8)
    first, second = (kept_keys(q, q, None, True, name) for name in names)
    assert not torch.equal(first, second)
    assert torch.equal(dense(asked_tiles(q, q, BlockMask.of(first).layout(), names[0])), first)
    assert remember(named(names[0])) == names[0]


def test_the_node_is_the_definition() -> None:
    """In every spelling: attention with a mask; a query without a key gets zeros."""
    name = remember(asked_for("window(3)"))
    q = torch.randn(1, 4, 20, 8)
    kv = torch.randn(1, 2, 20, 8)
    own = torch.ones(20, 20, dtype=torch.bool).tril(-2)
    mask = torch.where(own, 0.0, torch.finfo(torch.float32).min)
    kept = own & (torch.arange(20) > torch.arange(20)[:, None] - 3)
    expected = F.scaled_dot_product_attention(q, kv, kv, kept, enable_gqa=True, scale=0.3)
    for spelling in ("sdpa", "sdpa, grouped", "products"):
        found = attention(q, kv, kv, mask, 0.3, 0.0, False, spelling, name)
        assert not found[:, :, :2].any()
        torch.testing.assert_close(found[:, :, 2:], expected[:, :, 2:])


def test_what_a_predicate_reads_may_change() -> None:
    ids = torch.zeros(70, dtype=torch.int64)
    name = remember(asked_for(lambda b, h, q, kv: ids[q] == ids[kv]))
    q = torch.randn(1, 1, 70, 8)
    assert dense(asked_tiles(q, q, None, name)).all()
    ids[30:] = 1
    assert torch.equal(dense(asked_tiles(q, q, None, name))[0, 0], ids[:, None] == ids)


def test_a_predicate_that_tells_heads_apart() -> None:
    name = remember(asked_for(lambda b, h, q, kv: (q - kv).abs() <= 10 * h + b))
    q = torch.randn(2, 2, 70, 8)
    expected = kept_keys(q, q, None, False, name)
    assert len(expected.flatten(0, 1).unique(dim=0)) == 4
    assert torch.equal(dense(asked_tiles(q, q, None, name)), expected)


def test_per_head() -> None:
    name = remember(asked_for("per_head(window(3);causal)"))
    q = torch.randn(1, 2, 70, 8)
    found = dense(asked_tiles(q, q, None, name))[0]
    assert torch.equal(found, kept_keys(q, q, None, False, name)[0])
    assert isinstance(named(name), PerHead)


def test_an_interval_is_one() -> None:
    pattern = pattern_of("causal + window(3)", default_registry())
    q = torch.randn(1, 1, 3, 8)
    with pytest.raises(ValueError, match="keeps no intervals"):
        asked_interval_tiles(q, q, None, None, None, None, None, True, remember(pattern))
    check_pattern(pattern, Grid(3, 3), default_registry())
