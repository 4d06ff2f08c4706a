"""Attention whose mask is understood in part: ends without a pattern, and biases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.testing.laws import assert_no_worse


def up_to_the_own_chunk(q: Tensor) -> Tensor:
    place = torch.arange(20)
    return F.scaled_dot_product_attention(q, q, q, attn_mask=place // 4 <= place[:, None] // 4)


@torch.no_grad()
def test_masks_whose_ends_follow_no_pattern() -> None:
    q, backend = torch.randn(1, 4, 20, 16), sc.Compiler()
    ours = torch.compile(up_to_the_own_chunk, backend=backend)(q)
    assert_no_worse(ours, up_to_the_own_chunk(q), up_to_the_own_chunk(q.double()))
    (found,) = backend.report.nodes
    assert found.mask == "keys before 4 * (query) // 4 + 4"


@torch.no_grad()
@pytest.mark.parametrize(("heads", "is_bias"), [(4, True), (1, False)])
def test_what_is_added_with_heads_is_measured_as_a_bias(heads: int, is_bias: bool) -> None:
    def run(q: Tensor, mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, attn_mask=mask)

    (node,) = sc.explain(run, torch.randn(1, 4, 9, 16), torch.zeros(1, heads, 9, 9)).nodes
    assert node.problem.endswith("scanned, added of heads" if is_bias else "scanned, added")
