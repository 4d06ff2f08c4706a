"""Channels between linears that are always zero, or never read: what is left of weights without."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.errors import Reject

Makers = tuple[tuple[Tensor, Tensor | None], ...]
"""Weights `[n, k]` and biases `[n]`; a channel is zero where any of them makes zero of all."""
Readers = tuple[Tensor, ...]
"""Weights `[m, n]`; a channel is read where any of them holds something for it."""


def channels_in_use(makers: Makers, readers: Readers) -> Tensor:
    """Which channels may be other than zero and are read, `[n]` bool."""
    made = [_any(weight, bias) for weight, bias in makers]
    read = [weight.any(0) for weight in readers]
    return torch.stack(made).all(0) & torch.stack(read).any(0)


def _any(weight: Tensor, bias: Tensor | None) -> Tensor:
    found = weight.any(1)
    return found if bias is None else found | (bias != 0)


def take_channels(tensor: Tensor, dim: int, count: int, makers: Makers, readers: Readers) -> Tensor:
    """A weight or bias with `count` of its channels, all that are in use among them.

    A function of weights that graphs call: which channels these are is found out anew whenever one
    of the weights has changed.

    Args:
        tensor: one of the makers and readers.
        dim: where its channels are.
        count: how many are taken, in their order; those not in use fill up what is left.
        makers: what makes the channels.
        readers: what reads them.

    Raises:
        Reject: more are in use.
    """
    in_use = channels_in_use(makers, readers)
    if (found := int(in_use.sum())) > count:
        raise Reject(f"{found} of {len(in_use)} channels are in use, no longer up to {count}")
    order = in_use.byte().argsort(descending=True, stable=True)[:count].sort().values
    return tensor.index_select(dim, order)
