"""From a binding to a Packed: what is packed in the model already is taken as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.weights.expression import Apply, Binding, Leaf, evaluate
from sparsecompile.weights.packed_tensor import PackedTensor
from sparsecompile.weights.parts import part, stored_part
from sparsecompile.weights.stored import Stored


def stored_parts(binding: Binding, tensors: Iterable[Tensor]) -> tuple[Stored, ...]:
    """The packed weights of the model that a weight is made of: one, or some above one another.

    Args:
        binding: the weight.
        tensors: the live tensors of its leaves, in order.

    Returns:
        Empty where it is made of anything else.

    Raises:
        Reject: it is a part of one that is packed otherwise.
    """
    live = {leaf.index: tensor for leaf, tensor in zip(binding.leaves(), tensors, strict=True)}
    above: tuple[Binding, ...] = (binding,)
    if isinstance(binding, Apply) and binding.function is torch.cat and len(binding.args) == 1:
        above = binding.args[0]
    found = [_stored(each, live) for each in above]
    return tuple(s for s in found if s is not None) if None not in found else ()


def _stored(binding: Binding, live: Mapping[int, Tensor]) -> Stored | None:
    """The packed weight of the model that a weight, or a part of one, is.

    Raises:
        Reject: that one is packed otherwise.
    """
    if isinstance(binding, Leaf):
        tensor = live[binding.index]
        stored = tensor.stored if isinstance(tensor, PackedTensor) else None
        return stored if isinstance(stored, Stored) else None
    if binding.function is part and isinstance(binding.args[0], Leaf):
        weight, *which = binding.args
        tensor = live[weight.index]
        return stored_part(tensor, *which) if isinstance(tensor, PackedTensor) else None
    return None


def unpacked(binding: Binding, tensors: Iterable[Tensor]) -> Tensor:
    """A weight `[n, k]`, dense, for the live tensors of its leaves, in order."""
    tensors = tuple(tensors)
    parts = stored_parts(binding, tensors)
    return torch.cat([stored.unpack() for stored in parts]) if parts else evaluate(binding, tensors)


def pack_binding(binding: Binding, tensors: Iterable[Tensor], format: Format) -> Packed:
    """A weight in a format, for the live tensors of its leaves, in order.

    Raises:
        Reject: the weight does not have the format.
    """
    tensors = tuple(tensors)
    parts = stored_parts(binding, tensors)
    if not parts:
        return format.pack(evaluate(binding, tensors))
    for stored in parts:
        if stored.format != format:
            raise Reject(f"the weight is packed as {stored.format}, not as {format}")
    if len(parts) == 1:
        return parts[0].packed()
    # Lossy values are exact in float32, and packing these gives the same values again.
    exact = parts[0].dtype if format.codec.lossless else torch.float32
    dense = torch.cat([stored.unpack(exact) for stored in parts])
    kept = all(stored.exact for stored in parts)
    return replace(format.pack(dense, kept), dtype=parts[0].dtype)


def packer(binding: Binding, tensors: Iterable[Tensor], format: Format) -> Callable[[], Packed]:
    """What packs a weight, of the live tensors of its leaves in order, for measurements."""
    tensors = tuple(tensors)

    def pack() -> Packed:
        with torch.no_grad():
            return pack_binding(binding, tensors, format)

    return pack
