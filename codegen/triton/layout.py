"""The layout that Triton kernels read: a header, scales, and a structure's parts."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from sparsecompile.codegen.triton.decoding import parts_of
from sparsecompile.codegen.triton.fragment import TILE, TritonCodec, TritonStructure
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.ops import HEADER_BYTES
from sparsecompile.kernels.spec import KernelSpec

ALIGNMENT = 16
"""Bytes that one thread loads at once: parts begin at multiples of it."""

BEGIN = """\
# Where the parts of the layout begin; each at a multiple of {alignment} bytes. A header of {header}
# bytes comes first: n, k and the number of values that are stored, int64.
@triton.jit
def {name}_part(weight, n, k):
    return weight + {header}
"""

NEXT = """

@triton.jit
def {name}_part(weight, n, k):
{sizes}    size = {size}
    return {before}_part(weight, n, k) + (size + {last}) // {alignment} * {alignment}
"""

ENTRY = """

@triton.jit
def entry_of(part, at):
    return tl.load(part.to(tl.pointer_type(tl.int32)) + at).to(tl.int64)
"""
SIZES = {"rows": "tl.cast(n, tl.int64)", "tiles": f"tl.cdiv(k, {TILE})"}
"""What sizes of parts are given in, beside `n` and `k`."""


def arrange(packed: Packed, structure: TritonStructure, codec: TritonCodec) -> Tensor:
    """One weight as a layout.

    The header is `n`, `k` and the number of slots, int64.

    Returns:
        `[bytes]` uint8.
    """
    parts = dict(codec.parts(packed))
    parts |= structure.arrange(packed, codec.elements(packed))
    header = torch.zeros(HEADER_BYTES // 8, dtype=torch.int64)
    header[:3] = torch.tensor([*packed.shape, packed.slots])
    stretches = [header.view(torch.uint8)]
    for name, tensor in parts.items():
        flat = tensor.contiguous().reshape(-1)
        if name == "values":
            stored = codec.store(torch.nn.functional.pad(flat, (0, flat.numel() % 2)), packed)
        else:
            stored = flat.view(torch.uint8)
        stretches += [stored, stored.new_zeros(-stored.numel() % ALIGNMENT)]
    return torch.cat(stretches)


def render_parts(spec: KernelSpec, structure: TritonStructure) -> str:
    """The functions `<name>_part(weight, n, k)`: pointers to bytes."""
    sizes = {**parts_of(spec), **structure.sizes(spec.format.structure)}
    names = [*sizes, "values"]
    text = BEGIN.format(alignment=ALIGNMENT, name=names[0], header=HEADER_BYTES)
    if any("entry_of" in size for size in sizes.values()):
        text += ENTRY
    for before, name in pairwise(names):
        used = {key: value for key, value in SIZES.items() if key in sizes[before]}
        text += NEXT.format(
            name=name,
            sizes="".join(f"    {key} = {value}\n" for key, value in used.items()),
            size=sizes[before],
            before=before,
            alignment=ALIGNMENT,
            last=ALIGNMENT - 1,
        )
    return text
