"""Sample: what candidates of a problem are measured on; Contents, a packed weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparsecompile.formats.packed import Packed

if TYPE_CHECKING:
    from sparsecompile.kernels.kernel import Kernel


class Sample(ABC):
    """What candidates of a problem are measured on, and what their costs depend on."""

    @abstractmethod
    def dense(self) -> Tensor:
        """What the baseline reads, on the CPU."""

    @abstractmethod
    def exact(self) -> Tensor:
        """The same in float64, as exact as it is stored."""

    @abstractmethod
    def layout(self, kernel: Kernel[Any], device: torch.device) -> Tensor:
        """What a kernel reads, on a device."""


class Contents(Sample):
    """What costs depend on in a packed weight, each looked up once.

    Args:
        packed: the weight.
    """

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self.shape = packed.shape
        self.nbytes = packed.nbytes
        self.stored = packed.slots
        value_bytes = sum(t.numel() * t.element_size() for t in packed.values.values())
        self.value_bits = 8 * value_bytes / packed.slots if packed.slots else 0.0
        self._tiles: dict[tuple[int, int], int] = {}

    def dense(self) -> Tensor:
        """The dense weight, on the CPU."""
        return self.packed.unpack()

    def exact(self) -> Tensor:
        """The dense weight in float64."""
        return self.packed.unpack(torch.float32).double()

    def layout(self, kernel: Kernel[Any], device: torch.device) -> Tensor:
        """What a kernel reads, on a device."""
        layout = kernel.prepack(self.packed).to(device)
        return kernel.finish(layout, self.packed.shape, self.packed.dtype)

    @cached_property
    def kept(self) -> Tensor:
        """Which places of the dense weight `[n, k]` hold a value that is not zero: bool."""
        return self.packed.unpack() != 0

    @cached_property
    def values(self) -> int:
        """How many values are not zero."""
        return int(self.kept.sum())

    def tiles(self, rows: int, columns: int) -> int:
        """How many tiles of this size hold a value that is not zero."""
        key = (rows, columns)
        if key not in self._tiles:
            (n, k), kept = self.shape, self.kept
            padded = torch.nn.functional.pad(kept, (0, -k % columns, 0, -n % rows))
            tiles = padded.view(-(-n // rows), rows, -(-k // columns), columns)
            self._tiles[key] = int(tiles.any(3).any(1).sum())
        return self._tiles[key]


class NoWeight(Sample):
    """Of a node that reads no weight: costs depend on its sizes alone.

    Args:
        sizes: by name.
        share: of the places of its mask that count.
    """

    def __init__(self, sizes: Mapping[str, int], share: float = 1.0) -> None:
        self.sizes, self.share = sizes, share

    def dense(self) -> Tensor:
        """Nothing: `[0]`."""
        return torch.empty(0)

    def exact(self) -> Tensor:
        """Nothing: `[0]`."""
        return torch.empty(0)

    def layout(self, kernel: Kernel[Any], device: torch.device) -> Tensor:
        """Nothing: `[0]` uint8."""
        return torch.empty(0, dtype=torch.uint8, device=device)
