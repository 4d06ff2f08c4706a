"""DenseCopy: a dense weight in an order that a library multiplies faster than torch's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor


class DenseCopy(ABC):
    """How a dense weight is kept where it needs a copy anyway; plain data, hashable."""

    name: ClassVar[str]

    @abstractmethod
    def make(self, weight: Tensor) -> Tensor:
        """The copy, `[bytes]` uint8, as large as the weight but for some padding.

        Args:
            weight: `[n, k]`, contiguous.
        """

    @property
    @abstractmethod
    def op(self) -> Any:
        """The torch op `(x [..., k], copy, bias [n] or None, n) -> [..., n]`, without gradients."""
