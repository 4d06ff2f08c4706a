"""Attention whose mask is understood, although no pattern has its ends."""

from __future__ import annotations

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
