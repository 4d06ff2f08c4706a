"""Hidden: what a block reads of every batch, in memory or on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor


class Hidden:
    """Tensors one after the other; what does not fit in memory is in files.

    Files are mapped: the system reads and writes what it has no room for.

    Args:
        memory: bytes that may be kept in memory.
    """

    def __init__(self, memory: int) -> None:
        self._left = memory
        self._tensors: list[Tensor] = []
        self._devices: list[torch.device] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.files = 0
        """How many have been made."""

    def __enter__(self) -> Hidden:
        return self

    def __exit__(self, *error: object) -> None:
        self._tensors.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, index: int) -> Tensor:
        # A copy: blocks may write to what they read.
        return self._tensors[index].to(self._devices[index], copy=True)

    def __setitem__(self, index: int, value: Tensor) -> None:
        kept = self._tensors[index]
        if (kept.shape, kept.dtype) != (value.shape, value.dtype):
            kept = self._tensors[index] = self._place(value)
        kept.copy_(value)

    def append(self, value: Tensor) -> None:
        """Keep a copy of a tensor."""
        self._devices.append(value.device)
        self._tensors.append(self._place(value).copy_(value))

    def _place(self, like: Tensor) -> Tensor:
        """Room for a tensor, on its device or in a file."""
        if like.nbytes <= self._left:
            self._left -= like.nbytes
            return torch.empty_like(like, memory_format=torch.contiguous_format)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="sparsify-")
        file = str(Path(self._folder.name, str(self.files)))
        self.files += 1
        kept = torch.from_file(file, shared=True, size=like.numel(), dtype=like.dtype)
        return kept.view(like.shape)
