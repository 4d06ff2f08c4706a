"""Entries of a table, or small floats, times scales: both found back, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.codecs.grid import AT_ONCE, bounds
from sparsecompile.codecs.groups import Groups
from sparsecompile.formats.coordinates import Places

if TYPE_CHECKING:
    from sparsecompile.codecs.scaled import Scaled


def fit_scaled(
    codec: Scaled,
    tops: Sequence[float],
    nearest: Callable[[Tensor], Tensor],
    values: Tensor,
    places: Places,
) -> tuple[Tensor, Tensor]:
    """What is times scales, `[slots]` float32, and scales of all groups.

    Args:
        codec: group and the dtype of scales.
        tops: what the largest magnitude of a group may be times its scale, the likely first.
        nearest: what may be times a scale and is nearest to a number.
        values: `[slots]`.
        places: row and column of every slot.

    Raises:
        Reject: a group of values is nothing of this.
    """
    groups = Groups(values, places, codec.group)
    known = torch.empty(groups.values.shape)
    scales = torch.empty(len(known), dtype=codec.scales)
    step = max(1, AT_ONCE // known.shape[1])
    for first in range(0, len(known), step):
        left = torch.arange(first, min(first + step, len(known)))
        for spread in tops:
            here = groups.values[left]
            top = here.double().abs().amax(1, keepdim=True)
            found = nearest((here / torch.where(top == 0, 1, top / spread)).float())
            low, high = bounds(here, found.double())
            stored = torch.where(top == 0, 1, (low + high) / 2).float().to(codec.scales)
            off = (found * stored.float()).to(here.dtype) != here
            known[left], scales[left] = found, stored.squeeze(1)
            left = left[off.any(1)]
            if not left.numel():
                break
        else:
            bad = off[off.any(1)][0]
            raise groups.refusal(
                int(left[0]), int(bad.nonzero()[0]), f"on no grid of {codec.family}"
            )
    return groups.by_slot(known, 0), scales
