"""Slots: the weights that a compiled graph reads instead of the model's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from sparsecompile.formats.packed import Format
from sparsecompile.graph.timed import timed
from sparsecompile.kernels.dense_copy import DenseCopy
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.ops import HEADER_BYTES
from sparsecompile.lowering.readers import Readers
from sparsecompile.weights.cache import PACK_CACHE
from sparsecompile.weights.expression import Binding, beside
from sparsecompile.weights.packing import pack_binding, stored_parts, unpacked
from sparsecompile.weights.parts import may_go
from sparsecompile.weights.stored import Part


@dataclass(eq=False)
class Slot(ABC):
    """A weight of a graph, made of live tensors of the model and made again when they change."""

    binding: Binding

    @abstractmethod
    def weight(self, tensors: Sequence[Tensor]) -> Tensor:
        """What the graph takes, for the live tensors of the binding's leaves.

        Raises:
            Reject: the weight no longer has the format that the graph was compiled for.
        """

    @property
    def takes_dense(self) -> bool:
        """Whether the graph takes the dense weight, too, where it would take this one."""
        return False

    @abstractmethod
    def nbytes(self, tensors: Sequence[Tensor]) -> int:
        """Bytes of memory that it takes."""


@dataclass(frozen=True, eq=False)
class Layout:
    """A weight as a kernel reads it.

    Attributes:
        data: `[bytes]` uint8.
        header: what graphs take. On CPUs its first `HEADER_BYTES` as a tensor of their own over the
            same storage, so that a weight that needs more bytes after an update fits them too; on
            GPUs all of it, since CUDA graphs may copy what they are given.
    """

    data: Tensor
    header: Tensor

    @classmethod
    def of(cls, data: Tensor) -> Layout:
        """From what `Template.prepack` returns."""
        if data.device.type != "cpu":
            return cls(data, data)
        storage = data.untyped_storage()
        empty = torch.empty(0, dtype=torch.uint8)
        return cls(data, empty.set_(storage, data.storage_offset(), (HEADER_BYTES,), (1,)))


@dataclass(eq=False)
class PackedSlot(Slot):
    """A packed weight: the header of its layout.

    Weights that are packed in the model keep this layout in place of what it is made of.

    Attributes:
        format: of the weight.
        kernel: one of those that read it; exchanged where another layout is chosen.
    """

    format: Format
    kernel: Kernel[Any]

    def __str__(self) -> str:
        """The format."""
        return str(self.format)

    @property
    def takes_dense(self) -> bool:
        """On CPUs, where the op looks at what it gets; GPUs' graphs start kernels themselves.

        A weight that cannot be split any more has no part to take, one whose channels are in use
        again is larger than what the graph has.
        """
        return self.kernel.device == "cpu" and not may_go(self.binding)

    @property
    def purpose(self) -> Hashable:
        """What the layout is made for, as a key of `PACK_CACHE`."""
        return ("layout", self.format, self.kernel.layout)

    def weight(self, tensors: Sequence[Tensor]) -> Tensor:
        """Uint8: `[HEADER_BYTES]` with the layout behind it, or all of it on GPUs."""
        return self._layout(tensors).header

    def nbytes(self, tensors: Sequence[Tensor]) -> int:
        """Bytes of the layout."""
        return self._layout(tensors).data.numel()

    def _layout(self, tensors: Sequence[Tensor]) -> Layout:
        kernel, purpose = self.kernel, self.purpose
        READERS.add(self, tensors)

        def make() -> Layout:
            with timed("layouts"):
                packed = pack_binding(self.binding, tensors, self.format)
                layout = kernel.prepack(packed)
            first = 0
            for part in stored_parts(self.binding, tensors) if kernel.device == "cpu" else ():
                part.adopt(Part(layout, kernel.key, first))
                first += part.shape[0]
            placed = beside(layout, tensors[0])
            return Layout.of(kernel.finish(placed, packed.shape, packed.dtype))

        return PACK_CACHE.get(self.binding, tensors, purpose, make).value


READERS: Readers[PackedSlot] = Readers()
"""Those of this process."""


@dataclass(eq=False)
class DenseSlot(Slot):
    """A weight that is no Parameter as it is, such as a pruned one: its dense copy.

    Attributes:
        copy: what it is kept as; None for `[n, k]`.
    """

    copy: DenseCopy | None = None

    def __str__(self) -> str:
        """`a dense copy`."""
        return "a dense copy"

    def weight(self, tensors: Sequence[Tensor]) -> Tensor:
        """The copy."""
        return dense_copy(self.binding, tensors, self.copy)

    def nbytes(self, tensors: Sequence[Tensor]) -> int:
        """Bytes of the copy."""
        copy = self.weight(tensors)
        return copy.numel() * copy.element_size()


def dense_copy(
    binding: Binding, tensors: Sequence[Tensor], order: DenseCopy | None = None
) -> Tensor:
    """A dense copy of a weight, beside the live tensors of its leaves; made once.

    Args:
        binding: the weight.
        tensors: the live tensors of its leaves, in order.
        order: what it is kept as; None for `[n, k]`.
    """

    def make() -> Tensor:
        dense = unpacked(binding, tensors).contiguous()
        if order is not None:
            return beside(order.make(dense), tensors[0])
        own = {tensor.untyped_storage()._cdata for tensor in tensors}
        # What is kept with a weight's memory must not keep that.
        return beside(dense.clone() if dense.untyped_storage()._cdata in own else dense, tensors[0])

    return PACK_CACHE.get(binding, tensors, ("dense", order), make).value


def drop_packed(module: GraphModule, slots: Sequence[Slot], count: int) -> list[int]:
    """Drop the dense weights that only packed linears read; which arguments are left."""
    packed = {leaf.index for slot in slots for leaf in slot.binding.leaves()}
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"][:count]
    keep = []
    for index, node in enumerate(placeholders):
        if index in packed and not node.users:
            module.graph.erase_node(node)
        else:
            keep.append(index)
    module.recompile()
    return keep
