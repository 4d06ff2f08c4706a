"""Mask patterns: laws over the registry, definitions, and predicates of users."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparsecompile.errors import OptionError
from sparsecompile.masks.bigbird import BigBird
from sparsecompile.masks.block_mask import BlockMask
from sparsecompile.masks.causal import Causal
from sparsecompile.masks.counts import share
from sparsecompile.masks.dilated import Dilated
from sparsecompile.masks.fixed import Fixed
from sparsecompile.masks.full import Full
from sparsecompile.masks.grid import Grid
from sparsecompile.masks.interval_mask import IntervalMask
from sparsecompile.masks.intervals import Intervals
from sparsecompile.masks.pattern import MaskPattern
from sparsecompile.masks.per_head import PerHead
from sparsecompile.masks.predicate import Predicate
from sparsecompile.masks.text import pattern_of
from sparsecompile.masks.window import Window
from sparsecompile.registry import default_registry
from sparsecompile.testing.mask_laws import check_pattern, grids, patterns


@given(st.data())
def test_laws(data: st.DataObject) -> None:
    registry = default_registry()
    grid = data.draw(grids())
    check_pattern(data.draw(patterns(registry, grid)), grid, registry)


@pytest.mark.parametrize(
    "text",
    [
        "bigbird(window=3,global=1,random=2,block=16)",
        "bigbird(window=1,global=0,random=0,block=48)",
        "bigbird(window=1,global=0,random=1,block=100)",
        "chunked(50) & causal",
        "dilated(window=3,step=30)",
        "strided(90)",
        "fixed(stride=70,last=3)",
        "around(70) + global(40)",
    ],
)
def test_laws_where_tiles_and_blocks_begin_elsewhere(text: str) -> None:
    registry = default_registry()
    check_pattern(pattern_of(text, registry), Grid(200, 300, 37, 1), registry)


def test_tiles_that_no_line_crosses_are_not_looked_into() -> None:
    known = Dilated(4, 1000).tiles(Grid(1024, 1024))[0, 0]
    # The diagonal, and the corners that those 1000 beside it reach.
    assert int((known != 0).sum()) == 16 + 2
    known = Fixed(1000, 3).tiles(Grid(2048, 2048))[0, 0]
    # Beside the chunk's own, which begin in tiles 0, 15 and 31, the columns 997 to 999.
    assert known[20].nonzero().flatten().tolist() == [15, *range(16, 21)]


class WrongTiles(Causal):
    def tiles(self, grid: Grid) -> Tensor:
        return Full().tiles(grid)


class WrongEnds(Causal):
    def ends(self, q: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return None, q


@pytest.mark.parametrize("wrong", [WrongTiles(), WrongEnds()])
def test_laws_see_what_is_wrong(wrong: MaskPattern) -> None:
    wrong_registry = default_registry().copy()
    pattern_class = type(wrong)
    pattern_class.family = pattern_class.__name__
    wrong_registry.register(wrong)
    with pytest.raises(AssertionError):
        check_pattern(wrong, Grid(200, 200), wrong_registry)


def dense(pattern: MaskPattern, q: int, kv: int) -> Tensor:
    return pattern.keeps(*Grid(q, kv).places(1, pattern.heads)).expand(1, pattern.heads, q, kv)


def places(rows: str) -> Tensor:
    return torch.tensor([[mark == "x" for mark in row] for row in rows.split()])


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("full", "xxxx xxxx xxxx xxxx"),
        ("causal", "x... xx.. xxx. xxxx"),
        ("causal & window(2)", "x... xx.. .xx. ..xx"),
        ("window(2)", "xxxx xxxx .xxx ..xx"),
        ("around(1)", "xx.. xxx. .xxx ..xx"),
        ("chunked(2)", "xx.. xx.. ..xx ..xx"),
        ("global(1)", "xxxx x... x... x..."),
        ("around(0) + global(1)", "xxxx xx.. x.x. x..x"),
        ("causal + prefix(3)", "xxx. xxx. xxx. xxxx"),
        ("dilated(window=1,step=2)", "x.x. .x.x x.x. .x.x"),
        ("causal & dilated(window=1,step=3)", "x... .x.. ..x. x..x"),
        ("strided(2)", "x... xx.. xxx. .xxx"),
        ("fixed(stride=2)", "x... xx.. .xx. .xxx"),
        ("fixed(stride=3,last=2)", "x... xx.. xxx. .xxx"),
        ("documents(0*1,5*3)", "x... .xxx .xxx .xxx"),
        ("padding(1*3,0*1)", "xxx. xxx. xxx. xxx."),
        ("bigbird(window=1,global=0,random=0,block=2)", "xx.. xx.. ..xx ..xx"),
        ("bigbird(window=0,global=1,random=0,block=2)", "xxxx xxxx xx.. xx.."),
        ("(causal + prefix(2)) & window(3)", "xx.. xx.. xxx. .xxx"),
    ],
)
def test_definitions(text: str, rows: str) -> None:
    pattern = pattern_of(text, default_registry())
    assert torch.equal(dense(pattern, 4, 4)[0, 0], places(rows))
    assert str(pattern) == text


def test_heads_have_patterns_of_their_own() -> None:
    pattern = pattern_of("per_head(causal;window(2) & causal;full)", default_registry())
    assert pattern == PerHead((Causal(), Window(2) & Causal(), Full()))
    kept = dense(pattern, 3, 3)[0]
    assert [int(head.sum()) for head in kept] == [6, 5, 9]


def test_blocks_of_bigbird_are_drawn_by_the_seed() -> None:
    drawn = [dense(BigBird(1, 0, 3, 16, seed=seed, length=512), 512, 512) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    blocks = drawn[0][0, 0, ::16, ::16].sum(1)
    assert 2 <= int(blocks.min()) <= int(blocks.max()) == 4
    # However long the matrix is, the blocks are the same.
    shorter = dense(BigBird(1, 0, 3, 16, length=512), 256, 256)
    assert torch.equal(shorter, drawn[0][..., :256, :256])


def soft(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return (q - kv) * 0.5


def broken(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return torch.zeros(3)[q + kv] > 0


def scattered(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return (q * 7 + kv * 3 + h) % 5 == 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (soft, r"the mask soft\(b, h, q, kv\) returned torch.float32; return a bool"),
        (lambda *_: True, "returned bool; return a bool for each place, in operations on tensors"),
        (broken, r"the mask broken\(b, h, q, kv\) raised IndexError: .* for places \(1, 1, 8, 8\)"),
        (lambda *_: torch.ones(3) > 0, r"returned \(3,\) for places \(1, 1, 8, 8\)"),
        (lambda *_: torch.ones(2, 1, 1, 1, 1) > 0, r"returned \(2, 1, 1, 1, 1\) for places"),
    ],
)
def test_predicates_that_cannot_be_used(function: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Predicate(function).blocks(8, 8)


def test_predicates_of_users() -> None:
    pattern = Causal() & Predicate(scattered, head_count=2)
    mask = pattern.blocks(150, 200)
    assert mask.shape == (1, 2, 150, 200)
    expected = BlockMask.of(dense(pattern, 150, 200))
    for name, tensor in expected.tensors().items():
        assert torch.equal(mask.tensors()[name], tensor)
    assert Predicate(scattered) == Predicate(scattered) != Predicate(soft)
    assert hash(Predicate(scattered)) == hash(Predicate(scattered))
    assert str(pattern) == "causal & predicate[scattered]"


def test_a_predicate_is_computed_some_tiles_at_a_time() -> None:
    most = 0

    def watched(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        nonlocal most
        shape = torch.broadcast_shapes(q.shape, kv.shape)
        most = max(most, shape.numel())
        return kv <= q

    mask = Predicate(watched).blocks(2048, 2048)
    assert most == 2**20
    assert share(mask) == 2049 / 4096


def test_only_tiles_at_edges_are_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    keeps = Causal.keeps

    def counted(self: Causal, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        nonlocal looked_at
        looked_at += len(b)
        return keeps(self, b, h, q, kv)

    monkeypatch.setattr(Causal, "keeps", counted)
    mask = (Causal() & Window(4096)).blocks(16384, 16384)
    assert looked_at == 256 + 192
    assert len(mask.bits) == 256 + 192


@given(st.integers(1, 3), st.integers(1, 90), st.integers(1, 90), st.integers(0, 99))
def test_intervals_that_are_given(heads: int, q: int, kv: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = torch.randint(-3, kv + 3, (2, 1, q), generator=generator, dtype=torch.int32)
    high = torch.randint(-3, kv + 3, (1, heads, q), generator=generator, dtype=torch.int32)
    pattern = IntervalMask(Intervals(low, high))
    keys = torch.arange(kv)
    expected = BlockMask.of((low[..., None] <= keys) & (keys < high[..., None]))
    mask = pattern.blocks(q, kv)
    assert mask.shape == expected.shape == (2, heads, q, kv)
    for name, tensor in expected.tensors().items():
        assert torch.equal(mask.tensors()[name], tensor)
    assert pattern.intervals(Grid(q, kv)) is pattern.given
    assert str(pattern) == f"intervals[2x1x{q}]"


def test_of_no_places_the_share_is_none() -> None:
    assert share(Full().blocks(0, 0)) == 0.0
