"""Stamps: what live tensors were when they were packed, and whether they still are that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsecompile.weights import Stamp

_PLAIN = (Tensor, torch.nn.Parameter)

IsFresh = Callable[[tuple[Any, ...]], bool]
"""Whether the tensors among a call's arguments are the same, and as they were."""
Take = Callable[[tuple[Any, ...], Sequence[int]], IsFresh | None]

_native: Take | None = None


def provide(take: Take) -> None:
    """Let a native library look at plain tensors: for hundreds a call Python is too slow.

    Args:
        take: as `take_stamps`, or None where it cannot; the tensors are plain.
    """
    global _native
    _native = take


def take_stamps(arguments: tuple[Any, ...], places: Sequence[int]) -> IsFresh:
    """Note what the tensors at these places of a call's arguments are.

    They are not kept alive. See `Stamp` for what is noticed.

    Raises:
        RuntimeError: an inference tensor, which has no version.
    """
    tensors = [arguments[place] for place in places]
    if _native is not None and all(type(tensor) in _PLAIN for tensor in tensors):
        found = _native(arguments, places)
        if found is not None:
            return found
    stamps = tuple(map(Stamp.of, tensors))

    def is_fresh(others: tuple[Any, ...]) -> bool:
        return all(map(Stamp.matches, stamps, [others[place] for place in places]))

    return is_fresh
