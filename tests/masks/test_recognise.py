"""Masks by their spellings, and where something writes into them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from masks.recorded import recorded
from masks.traced import traced
from torch import Tensor

from sparsecompile.operators.attention.recognise.ends import pattern

LEAST = torch.finfo(torch.float32).min
Q, KV = 9, 11


def rows(q: int) -> Tensor:
    return torch.arange(q)[:, None]


def additive(keeps: Tensor) -> Tensor:
    return torch.where(keeps, 0.0, LEAST)


def square(q: int) -> Tensor:
    return torch.ones((q, q), dtype=torch.bool)


SPELLINGS: dict[str, tuple[str, Callable[[int, int], Tensor]]] = {
    "operators": ("causal", lambda q, kv: torch.arange(kv) <= rows(q)),
    "functions": ("causal", lambda q, kv: torch.less_equal(torch.arange(kv), rows(q))),
    "methods": ("causal", lambda q, kv: rows(q).ge(torch.arange(0, kv))),
    "opposite": ("causal", lambda q, kv: torch.logical_not(torch.arange(kv) > rows(q))),
    "differences": ("causal", lambda q, kv: (rows(q) - torch.arange(kv)) >= 0),
    "factors": ("causal", lambda q, kv: 2 * torch.arange(kv) - torch.arange(kv) <= rows(q) * 1),
    "view": ("causal", lambda q, kv: torch.arange(kv).view(1, -1) <= torch.arange(q).view(-1, 1)),
    "unsqueezed": (
        "causal",
        lambda q, kv: (torch.arange(kv).unsqueeze(0) <= torch.arange(q).unsqueeze(-1)).unsqueeze(0)[
            None
        ],
    ),
    "tril": ("causal", lambda q, kv: square(q).tril()),
    "triu": ("causal", lambda q, kv: ~torch.triu(square(q), diagonal=1)),
    "window": (
        "causal & window(3)",
        lambda q, kv: torch.logical_and(
            torch.arange(kv) <= rows(q), (rows(q) - torch.arange(kv)).lt(3)
        ),
    ),
    "band": ("around(2)", lambda q, kv: square(q).tril(2) & square(q).triu(-2)),
    "around": ("around(2)", lambda q, kv: (torch.arange(kv) - rows(q)).abs() <= 2),
    "around_less": ("around(2)", lambda q, kv: torch.abs(rows(q) - torch.arange(kv)) < 3),
    "chunked": (
        "chunked(4)",
        lambda q, kv: torch.div(rows(q), 4, rounding_mode="floor") == torch.arange(kv) // 4,
    ),
    "chunked_later": (
        "chunked(4), queries from 3",
        lambda q, kv: (rows(q) + 3) // 4 == torch.arange(kv) // 4,
    ),
    "earlier_chunks": (
        "keys before 4 * (query) // 4 + 4",
        lambda q, kv: torch.arange(kv) // 4 <= rows(q) // 4,
    ),
    "moved": ("causal, queries from 3", lambda q, kv: torch.arange(kv) <= rows(q) + 3),
    "sliced": ("causal, queries from 2", lambda q, kv: torch.arange(kv) <= rows(q + 2)[2:]),
    "chosen": ("causal, queries from 3", lambda q, kv: torch.arange(kv)[None] < torch.arange(q)[4]),
    "from_behind": ("keys from 7", lambda q, kv: torch.arange(kv)[None] >= torch.arange(q)[-2]),
    "within": ("causal", lambda q, kv: (torch.arange(kv) <= rows(q)) | (rows(q) < 0)),
    "either": (
        "around(3)",
        lambda q, kv: (
            ((rows(q) - torch.arange(kv)).abs() < 2) | ((rows(q) - torch.arange(kv)).abs() < 4)
        ),
    ),
    "one_key": (
        "around(0)",
        lambda q, kv: torch.arange(kv) == rows(q),
    ),
    "nothing": ("nothing", lambda q, kv: (torch.arange(kv) < rows(q)) & (rows(q) < 0)),
    "full": ("full", lambda q, kv: (torch.arange(kv) >= 0) & (rows(q) >= 0)),
    "added": ("causal", lambda q, kv: torch.where(torch.arange(kv) <= rows(q), 0.0, -math.inf)),
    "added_otherwise": (
        "causal",
        lambda q, kv: torch.where(torch.arange(kv) > rows(q), LEAST, 0.0),
    ),
    "filled": (
        "causal",
        lambda q, kv: torch.zeros((q, kv)).masked_fill(torch.arange(kv) > rows(q), LEAST),
    ),
    "nothing_added": ("full", lambda q, kv: torch.zeros((q, kv))),
    "nothing_added_twice": ("full", lambda q, kv: torch.zeros((1, kv)) + torch.zeros((q, kv))),
    "zeros_and_more": (
        "causal",
        lambda q, kv: torch.zeros((q, kv)) + additive(torch.arange(kv) <= rows(q)),
    ),
    "more_and_zeros": (
        "causal",
        lambda q, kv: additive(torch.arange(kv) <= rows(q)) + torch.zeros((1, kv)),
    ),
    "repeated_rows": (
        "keys before getitem + 1",
        lambda q, kv: torch.arange(kv) <= torch.arange(q).repeat(2)[:, None],
    ),
    "repeated": ("causal", lambda q, kv: torch.arange(kv).repeat(1, 1) <= rows(q).repeat(1, 1, kv)),
    "filled_triangle": (
        "causal",
        lambda q, kv: torch.triu(torch.full((q, q), -math.inf), diagonal=1),
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling: str) -> None:
    text, function = SPELLINGS[spelling]
    drawn = traced(function, Q, KV)
    found = drawn.recognise()
    assert found.text == text
    assert found.is_full == (text == "full")
    mask = drawn.values()[drawn.mask]
    kept = mask if found.fill is None else mask == 0
    assert found.is_full or found.fill in (None, mask.min().item())
    blocks = pattern(drawn.ends(found)).blocks(*kept.shape[-2:])
    assert torch.equal(
        blocks.dense().expand((1, 1, *kept.shape[-2:]))[0, 0], kept.view(kept.shape[-2:])
    )


TABLES: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "padding": ("padding", lambda keep, ids: keep[:, None, None, :]),
    "not_padding": ("padding", lambda keep, ids: ~keep[:, None, None, :]),
    "lengths": (
        "keys before getitem",
        lambda keep, ids: torch.arange(9 + keep.dim() * 0) < keep.sum(1)[:, None, None, None],
    ),
    "documents": ("documents", lambda keep, ids: ids[:, None, :, None] == ids[:, None, None, :]),
    "blocks": (
        "documents & some queries",
        lambda keep, ids: (
            (ids[:, None, :, None] == ids[:, None, None, :]) & (ids[:, None, :, None] >= 1)
        ),
    ),
    "rows_of_padding": (
        "padding & some queries",
        lambda keep, ids: keep[:, None, :, None] & keep[:, None, None, :],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(name: str) -> None:
    text, function = TABLES[name]
    torch.manual_seed(1)
    drawn = traced(function, torch.rand(2, 9) > 0.3, torch.randint(0, 3, (2, 9)))
    found = drawn.recognise()
    assert found.text == text
    mask = drawn.values()[drawn.mask]
    blocks = pattern(drawn.ends(found)).blocks(*mask.shape[-2:])
    assert torch.equal(blocks.dense().expand_as(mask), mask)


def attend(mask: Tensor, x: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)


def causal(x: Tensor) -> Tensor:
    return torch.arange(x.shape[-2]) <= rows(x.shape[-2])


def _written(x: Tensor, length: Tensor) -> Tensor:
    mask = causal(x)
    mask[:, 0] = False
    return attend(mask, x)


def _written_through_a_view(x: Tensor, length: Tensor) -> Tensor:
    mask = causal(x)
    mask.t().logical_not_()
    return attend(mask, x)


def _written_on_the_way(x: Tensor, length: Tensor) -> Tensor:
    last = rows(x.shape[-2]) + length
    mask = torch.arange(x.shape[-2]) <= last
    last.add_(1)
    return attend(mask & (torch.arange(x.shape[-2]) > last - 3), x)


def _written_afterwards(x: Tensor, length: Tensor) -> Tensor:
    mask = torch.arange(x.shape[-2]) <= rows(x.shape[-2]) + length
    length.add_(1)
    return attend(mask, x)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (_written, "setitem writes into what mask is made of"),
        (_written_through_a_view, "logical_not_ writes into what mask is made of"),
        (_written_on_the_way, "add_ writes into what and_ is made of"),
        # What a mask was made of is read right behind it.
        (_written_afterwards, "causal, queries from l_length_"),
    ],
)
def test_writes(function: Any, text: str) -> None:
    (found,) = recorded(function, torch.randn(1, 1, 6, 8), torch.tensor(2))
    assert found == text


def test_refuses_what_cannot_be_computed_for_other_sizes() -> None:
    def function(x: Tensor) -> Tensor:
        size = x.shape[-2]
        paired = torch.arange(size).view(2, -1).reshape(-1)
        return attend((torch.arange(size) <= rows(size)) & (paired > 0), x)

    (found,) = recorded(function, torch.randn(1, 1, 6, 8), dynamic=True)
    assert found.startswith("and_ cannot be computed on its own to hold it against: ")


def mapped(function: Any, x: Tensor, *, out: int = 0) -> Tensor:
    index = torch.arange(x.shape[-2])
    by_key = torch.vmap(function, in_dims=(None, 0))
    return torch.vmap(by_key, in_dims=(0, None), out_dims=out)(index, index)


def looked_up(x: Tensor) -> Tensor:
    table = (x[0, 0, :, 0] > 0).long()
    return mapped(lambda q, kv: (kv <= q) & table[kv].to(dtype=torch.bool), x)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: attend(mapped(operator.ge, x), x), "causal"),
        (
            lambda x: attend(mapped(operator.ge, x, out=1), x),
            "puts what a vmap maps over not in front of all axes",
        ),
        (lambda x: attend(looked_up(x), x), "has keywords inside of a vmap"),
        (
            lambda x: attend(torch.vmap(lambda row: row > 0)(x[0, 0, :, :6]), x),
            "something else than a vector of indices",
        ),
    ],
)
def test_vmap(function: Any, text: str) -> None:
    (found,) = recorded(function, torch.randn(1, 1, 6, 8))
    assert text in found
