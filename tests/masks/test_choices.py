"""Choices of keys by what they hold: definitions, how they are computed, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparsecompile import OptionError
from sparsecompile.masks.block_mask import TILE, BlockMask
from sparsecompile.masks.choice import Choice
from sparsecompile.masks.clusters import Clusters
from sparsecompile.masks.given import Given
from sparsecompile.masks.grid import Grid
from sparsecompile.masks.top_blocks import TopBlocks
from sparsecompile.operators.attention.asked import asked_for
from sparsecompile.registry import default_registry

CHOICES = default_registry().all(Choice)
each_choice = pytest.mark.parametrize("choice", CHOICES, ids=str)


@st.composite
def inputs(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, int]:
    """q, k, an own mask, and the position of the first query."""
    queries = draw(st.one_of(st.integers(1, 20), st.integers(1, 200)))
    keys = queries + draw(st.integers(0, 200))
    first = draw(st.integers(0, keys - queries))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    q = torch.randn(2, 4, queries, 8, generator=generator)
    k = torch.randn(2, 2, keys, 8, generator=generator)
    own = torch.arange(keys) <= (first + torch.arange(queries))[:, None]
    if draw(st.booleans()):
        own = own & (torch.rand(2, 1, queries, keys, generator=generator) < 0.05)
    return q, k, own.expand(1 if own.dim() == 2 else 2, 1, queries, keys), first


@each_choice
@given(inputs())
def test_what_is_computed_is_the_definition(
    choice: Choice, drawn: tuple[Tensor, Tensor, Tensor, int]
) -> None:
    q, k, own, first = drawn
    expected = own & choice.choose(q, k, own, torch.tensor(first))
    grid = Grid(q.shape[2], k.shape[2], first)
    mask = Given(BlockMask.of(own), first)
    both = mask & choice.pattern(q, k, mask, grid)
    blocks = both.blocks(grid.q, grid.kv, offset=first)
    assert torch.equal(blocks.dense(), expected)


@each_choice
@given(inputs())
def test_keys_behind_the_last_query_do_not_matter(
    choice: Choice, drawn: tuple[Tensor, Tensor, Tensor, int]
) -> None:
    """As they are of a static cache: nothing that counts depends on what they hold."""
    q, k, own, first = drawn
    known = first + q.shape[2]
    found = choice.choose(q, k, own, torch.tensor(first))
    k, own = k[:, :, :known], own[..., :known]
    assert torch.equal(
        choice.choose(q, k, own, torch.tensor(first)) & own, found[..., :known] & own
    )


@given(inputs(), st.floats(0.01, 1))
def test_top_blocks(drawn: tuple[Tensor, Tensor, Tensor, int], share: float) -> None:
    """Row by row: those with the best scores among those that there are."""
    q, k, own, first = drawn
    found = TopBlocks(share).choose(q, k, own, torch.tensor(first))
    for row in range(0, q.shape[2], TILE):
        queries = slice(row, row + TILE)
        columns = range(0, first + q.shape[2], TILE)
        there = [c for c in columns if own[0, 0, queries, c : c + TILE].any()]
        pooled = q[0, 3, queries].mean(0)
        score = {
            c: float(pooled @ k[0, 1, c : min(c + TILE, first + q.shape[2])].mean(0)) for c in there
        }
        count = math.ceil(len(there) * torch.tensor(share).item())
        best = set(sorted(there, key=lambda c: -score[c])[:count])
        last = first + min(row + TILE, q.shape[2]) - 1
        diagonal = {(first + row) // TILE * TILE, last // TILE * TILE}
        kept = {c for c in there if found[0, 3, row, c]}
        assert kept == (best | diagonal | {0}) & set(there)


def test_clusters_of_what_lies_apart() -> None:
    """Keys in three directions, and queries that point to one of them."""
    place = torch.randint(0, 3, (1, 1, 90), generator=torch.Generator().manual_seed(0))
    place[0, 0, ::30] = torch.arange(3)
    k = torch.eye(8)[place] + 0.01 * torch.randn(1, 1, 90, 8)
    q = 5 * torch.eye(8)[place.roll(1, 2)]
    own = torch.ones(1, 1, 90, 90, dtype=torch.bool)
    found = Clusters(3).choose(q, k, own, torch.tensor(0))
    alike = place.roll(1, 2)[..., None] == place[:, :, None]
    assert torch.equal(found, alike | torch.eye(90, dtype=torch.bool))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "top_blocks(0)",
            "no mask 'top_blocks\\(0\\)': 0.0 is no share above 0 and up to 1; write",
        ),
        ("top_blocks(1.5)", "1.5 is no share"),
        (
            "top_blocks(some)",
            "no mask 'top_blocks\\(some\\)': could not convert .*top_blocks\\(0.2",
        ),
        ("clusters(0)", "0 clusters are too few; it needs 1 or more; write for example"),
        ("clusters", "write for example clusters\\(16\\)"),
        ("cluster(8)", "no mask is called 'cluster'; did you mean 'clusters'"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        asked_for(text)


@each_choice
def test_texts_are_read_back(choice: Choice) -> None:
    assert asked_for(f" {choice} ") == choice
    assert str(asked_for(str(choice))) == str(choice)
