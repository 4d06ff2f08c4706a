"""A mask that is recognised is the mask: of drawn graphs, with nothing to hold it against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from masks.traced import Traced, traced
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.masks.block_mask import BlockMask
from sparsecompile.operators.attention.recognise import recognise as module
from sparsecompile.operators.attention.recognise.conditions import Conditions
from sparsecompile.operators.attention.recognise.ends import pattern
from sparsecompile.operators.attention.recognise.linear import Linear
from sparsecompile.operators.attention.recognise.term import Terms
from sparsecompile.operators.attention.recognise.verify import verify

Index = dict[str, Any]
Integers = Callable[[Index], Any]
COMPARISONS = {
    "<=": lambda a, b: a <= b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
"""As Python writes them; other spellings are in `test_recognise.py`."""


def _table(index: Index, name: str, place: str) -> Any:
    return index[name][index["b"], index[place]]


def integers() -> st.SearchStrategy[Integers]:
    """What masks compare: positions, moved and divided, and what is looked up."""
    leaves: st.SearchStrategy[Integers] = st.sampled_from(
        [
            lambda i: i["q"],
            lambda i: i["kv"],
            lambda i: i["kv"],
            lambda i: i["offset"],
            lambda i: i["lengths"][i["b"]],
            lambda i: _table(i, "ids", "q"),
            lambda i: _table(i, "ids", "kv"),
            lambda i: _table(i, "positions", "kv"),
        ]
    )
    constants = st.integers(-3, 9)

    def grown(parts: st.SearchStrategy[Integers]) -> st.SearchStrategy[Integers]:
        return st.one_of(
            st.builds(lambda a, c: lambda i: a(i) + c, parts, constants),
            st.builds(lambda a, b: lambda i: a(i) - b(i), parts, parts),
            st.builds(lambda a, c: lambda i: a(i) // c, parts, st.integers(1, 5)),
            st.builds(lambda a: lambda i: abs(a(i)), parts),
            st.builds(lambda a, c: lambda i: a(i) * c, parts, st.integers(-1, 2)),
        )

    return st.recursive(leaves, grown, max_leaves=3)


def masks() -> st.SearchStrategy[Integers]:
    """Comparisons and padding, joined in every way."""
    compared = st.builds(
        lambda op, a, b: lambda i: COMPARISONS[op](a(i), b(i) if callable(b) else b),
        st.sampled_from(list(COMPARISONS)),
        integers(),
        st.one_of(integers(), st.integers(-2, 8)),
    )
    causal: st.SearchStrategy[Integers] = st.just(lambda i: i["kv"] <= i["q"])
    padding: st.SearchStrategy[Integers] = st.just(lambda i: _table(i, "keep", "kv"))

    def grown(parts: st.SearchStrategy[Integers]) -> st.SearchStrategy[Integers]:
        return st.one_of(
            st.builds(lambda a, b: lambda i: a(i) & b(i), parts, parts),
            st.builds(lambda a, b: lambda i: a(i) & b(i), parts, parts),
            st.builds(lambda a, b: lambda i: a(i) | b(i), parts, parts),
            st.builds(lambda a: lambda i: ~a(i), parts),
        )

    return st.recursive(st.one_of(compared, causal, padding), grown, max_leaves=4)


def graph(made: Integers, q: int, kv: int, seed: int) -> Traced:
    """Of a mask, with drawn tables."""
    generator = torch.Generator().manual_seed(seed)

    def table(*shape: int) -> Tensor:
        return torch.randint(0, 4, shape, generator=generator)

    def mask(q: int, kv: int, keep: Tensor, ids: Tensor, lengths: Tensor, offset: Tensor) -> Tensor:
        index: Index = {
            "b": torch.arange(q - q + 2)[:, None, None, None],
            "q": (torch.arange(q) + 0)[None, None, :, None],
            "kv": torch.arange(kv)[None, None, None, :],
            "positions": (torch.arange(kv) + 1)[None].expand(2, -1),
            "keep": keep,
            "ids": ids,
            "lengths": lengths,
            "offset": offset,
        }
        return made(index).expand(2, 1, q, kv)

    size = max(q, kv)
    inputs = (q, kv, table(2, size) > 0, table(2, size), table(2), table()[()])
    return traced(mask, *inputs)


@pytest.mark.parametrize("is_held", [True, False])
@given(masks(), st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_what_is_recognised_is_the_mask(
    is_held: bool, made: Integers, q: int, kv: int, seed: int
) -> None:
    drawn = graph(made, q, kv, seed)
    with pytest.MonkeyPatch.context() as patch:
        if not is_held:
            patch.setattr(module, "verify", lambda found, terms: None)
        try:
            found = drawn.recognise()
        except Reject:
            return
    expected = drawn.values()[drawn.mask]
    kept = pattern(drawn.ends(found)).blocks(q, kv)
    assert torch.equal(kept.dense().expand_as(expected), expected), found.text


@given(st.sampled_from((-1, 1)), st.sampled_from(("lows", "highs")), st.integers(1, 9))
def test_an_end_that_is_off_by_one_is_not_believed(move: int, ends: str, window: int) -> None:
    def window_of(i: Index) -> Any:
        return (i["kv"] <= i["q"]) & (i["kv"] > i["q"] - window) & _table(i, "keep", "kv")

    drawn = graph(window_of, 20, 20, 0)
    found = drawn.recognise()
    wrong = frozenset(end + move for end in getattr(found.conditions, ends))
    _check_disbelieved(drawn, replace(found.conditions, **{ends: wrong}))


@pytest.mark.parametrize(
    "wrong",
    [
        Conditions(),
        Conditions(highs=frozenset({Linear.along(-2)})),
        Conditions(lows=frozenset({Linear.along(-2)})),
        Conditions(highs=frozenset({Linear.along(-2, 1), Linear(3)})),
    ],
)
def test_another_mask_is_not_believed(wrong: Conditions) -> None:
    _check_disbelieved(graph(lambda i: i["kv"] <= i["q"], 9, 9, 0), wrong)


def _check_disbelieved(drawn: Traced, wrong: Conditions) -> None:
    found = replace(drawn.recognise(), conditions=wrong)
    with pytest.raises(Reject, match=r"was read as .*, but of \d+ queries and \d+ keys it is"):
        verify(found, Terms())


def test_of_long_masks_some_rows_are_held() -> None:
    drawn = graph(lambda i: i["kv"] <= i["q"], 500, 500, 0)
    assert drawn.recognise().text == "causal"
    _check_disbelieved(drawn, Conditions(highs=frozenset({Linear.along(-2, 1), Linear(499)})))


def test_a_mask_of_tiles_is_that_of_the_graph() -> None:
    drawn = graph(lambda i: (i["kv"] <= i["q"]) & _table(i, "keep", "kv"), 200, 200, 3)
    blocks = pattern(drawn.ends(drawn.recognise())).blocks(200, 200)
    expected = BlockMask.of(drawn.values()[drawn.mask])
    for name, tensor in expected.tensors().items():
        assert torch.equal(blocks.tensors()[name], tensor)
