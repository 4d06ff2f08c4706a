"""From a binding to a Packed: what is packed in the model already is taken as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.weights.expression import Apply, Binding, evaluate
from sparsecompile.weights.packed_tensor import PackedTensor
from sparsecompile.weights.stored import Stored


def stored_parts(binding: Binding, tensors: Iterable[Tensor]) -> tuple[Stored, ...]:
    """The packed weights of the model that a weight is made of: one, or some above one another.

    Args:
        binding: the weight.
        tensors: the live tensors of its leaves, in order.

    Returns:
        Empty where it is made of anything else.
    """
    live = {leaf.index: tensor for leaf, tensor in zip(binding.leaves(), tensors, strict=True)}
    parts: tuple[Binding, ...] = (binding,)
    if isinstance(binding, Apply) and binding.function is torch.cat and len(binding.args) == 1:
        parts = binding.args[0]
    if any(isinstance(part, Apply) for part in parts):
        return ()
    found = [live[part.index] for part in parts]  # type: ignore[union-attr]
    packed = [tensor.stored for tensor in found if isinstance(tensor, PackedTensor)]
    return tuple(packed) if len(packed) == len(found) else ()


def unpacked(binding: Binding, tensors: Iterable[Tensor]) -> Tensor:
    """A weight `[n, k]`, dense, for the live tensors of its leaves, in order."""
    tensors = tuple(tensors)
    parts = stored_parts(binding, tensors)
    return torch.cat([part.unpack() for part in parts]) if parts else evaluate(binding, tensors)


def pack_binding(binding: Binding, tensors: Iterable[Tensor], format: Format) -> Packed:
    """A weight in a format, for the live tensors of its leaves, in order.

    Raises:
        Reject: the weight does not have the format.
    """
    tensors = tuple(tensors)
    parts = stored_parts(binding, tensors)
    if not parts:
        return format.pack(evaluate(binding, tensors))
    for part in parts:
        if part.format != format:
            raise Reject(f"the weight is packed as {part.format}, not as {format}")
    if len(parts) == 1:
        return parts[0].packed()
    # Lossy values are exact in float32, and packing these gives the same values again.
    exact = parts[0].dtype if format.codec.lossless else torch.float32
    dense = torch.cat([part.unpack(exact) for part in parts])
    kept = all(part.exact for part in parts)
    return replace(format.pack(dense, kept), dtype=parts[0].dtype)


def packer(binding: Binding, tensors: Iterable[Tensor], format: Format) -> Callable[[], Packed]:
    """What packs a weight, of the live tensors of its leaves in order, for measurements."""
    tensors = tuple(tensors)

    def pack() -> Packed:
        with torch.no_grad():
            return pack_binding(binding, tensors, format)

    return pack
