"""Why masks are not recognised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from masks.traced import traced
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.operators.attention.recognise.recognise import recognise

Q, KV = 9, 11


def rows(q: int) -> Tensor:
    return torch.arange(q)[:, None]


REFUSED: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "given": ("t is given to the graph as a mask, which nothing is known of", lambda q, kv, t: t),
    "buffer": (
        "getitem depends on queries and on keys by getitem",
        lambda q, kv, t: t[:, :5],
    ),
    "union": (
        "or_ joins two masks, neither of which lies in the other",
        lambda q, kv, t: (torch.arange(kv) < rows(q)) | (torch.arange(kv) > rows(q) + 2),
    ),
    "opposite": (
        "invert is the opposite of several conditions",
        lambda q, kv, t: ~((torch.arange(kv) < rows(q)) & (torch.arange(kv) > rows(q) - 3)),
    ),
    "hole": (
        "ne leaves one key out, which cuts an interval in two",
        lambda q, kv, t: torch.arange(kv) != rows(q),
    ),
    "hole_of_a_chunk": (
        "ne leaves one chunk out, which cuts an interval in two",
        lambda q, kv, t: torch.arange(kv) // 2 != rows(q) // 2,
    ),
    "keywords": (
        "le depends on queries and on keys by le(...)",
        lambda q, kv, t: torch.le(torch.arange(kv), other=rows(q)),
    ),
    "dilated": (
        "eq compares what depends on queries and on keys by 'eq', which gives no interval of keys",
        lambda q, kv, t: (rows(q) - torch.arange(kv)) % 2 == 0,
    ),
    "far": (
        "gt compares what depends on queries and on keys by 'gt', which gives no interval of keys",
        lambda q, kv, t: abs(rows(q) - torch.arange(kv)) > 2,
    ),
    "itself": (
        "eq compares keys with themselves",
        lambda q, kv, t: torch.arange(kv) - rows(q) == torch.arange(kv),
    ),
    "bias": (
        "where adds -1 to scores, which is a bias, not a mask",
        lambda q, kv, t: torch.where(torch.arange(kv) <= rows(q), 0.0, -1.0),
    ),
    "computed_bias": (
        "mul adds what mul gives to scores: no mask that is read",
        lambda q, kv, t: (rows(q) - torch.arange(kv)) * 0.5,
    ),
    "triangle_of_something": (
        "tril is a triangle of something else than ones",
        lambda q, kv, t: t.tril(),
    ),
    "number": (
        "add is torch.int64 where a mask is combined",
        lambda q, kv, t: torch.logical_and(torch.arange(kv) <= rows(q), rows(q) + 1),
    ),
    "two_ids": (
        "and_ compares ids of 2 kinds",
        lambda q, kv, t: (
            (rows(q) % 2 == torch.arange(kv) % 2) & (rows(q) % 3 == torch.arange(kv) % 3)
        ),
    ),
    "boolean_positions": (
        "gt is compared as torch.bool, not as integers",
        lambda q, kv, t: torch.arange(kv) <= rows(q) + (rows(q) > 2),
    ),
    "axes": (
        "getitem has 5 axes",
        lambda q, kv, t: torch.arange(kv) <= torch.arange(q)[:, None, None, None, None],
    ),
    "switched": (
        "gt is no mask",
        lambda q, kv, t: (torch.arange(kv) <= rows(q)) & (q > 3),
    ),
    "heads": (
        "an end of the mask rises from entry to entry, or from head to head",
        lambda q, kv, t: torch.arange(kv) <= torch.arange(q)[:, None, None],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    reason, function = REFUSED[name]
    drawn = traced(function, Q, KV, torch.ones(Q, KV, dtype=torch.bool))
    with pytest.raises(Reject) as refusal:
        drawn.recognise()
    assert refusal.value.reason == reason


def deep(x: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        x = x + 1
    return torch.arange(x.shape[-1]) <= x[:, None]


def test_refuses_what_is_made_of_a_model() -> None:
    assert traced(lambda x: deep(x, 20), torch.arange(5)).recognise()
    with pytest.raises(Reject, match="it is made of more than 128 nodes, among them add_"):
        traced(lambda x: deep(x, 200), torch.arange(5)).recognise()


def test_refuses_what_nothing_is_known_of() -> None:
    drawn = traced(lambda q: rows(q) >= torch.arange(q), 3)
    del drawn.mask.meta["example_value"]
    with pytest.raises(Reject, match="nothing is known of the shape and dtype of ge"):
        recognise(drawn.mask)


def test_refuses_positions_that_nothing_is_known_of() -> None:
    drawn = traced(lambda q: rows(q) >= torch.arange(q), 3)
    left = drawn.mask.all_input_nodes[0]
    left.meta["example_value"] = None
    with pytest.raises(Reject, match=f"nothing is known of {left.name}"):
        drawn.recognise()
