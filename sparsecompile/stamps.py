"""Stamps: what live tensors were when they were packed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import sparsecompile.ops  # noqa: F401 - the schemas of the native ones
from sparsecompile.weights import Stamp

_PLAIN = (Tensor, torch.nn.Parameter)


class Stamps:
    """Live tensors as they are now; see `Stamp`.

    Plain tensors are looked at by the native library, if it is loaded: for hundreds of weights
    before every call of a graph Python is too slow.

    Args:
        tensors: the live tensors; they are not kept alive.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        is_plain = all(type(tensor) in _PLAIN for tensor in tensors)
        self._native = None
        self._stamps: Sequence[Stamp] = ()
        if is_plain and _is_native():
            self._native = torch.ops.sparsecompile.stamp(tensors)
        else:
            self._stamps = tuple(map(Stamp.of, tensors))

    def match(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are the same tensors, in the same order, and as they were."""
        if self._native is not None:
            return _is_fresh(tensors, self._native)  # type: ignore[no-any-return]
        same = len(tensors) == len(self._stamps)
        return same and all(map(Stamp.matches, self._stamps, tensors))


_is_fresh = torch.ops.sparsecompile.is_fresh.default


def _is_native() -> bool:
    """Whether the native library is loaded."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        "sparsecompile::is_fresh", "CompositeExplicitAutograd"
    )
