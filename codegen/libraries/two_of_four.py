"""2:4 weights for NVIDIA's sparse tensor cores: what they take, and how it is packed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.structures.bits import unpack_codes
from sparsecompile.structures.n_m import NM

if TYPE_CHECKING:
    import sympy

    from sparsecompile.kernels.cost import Cost

DTYPES = (torch.float16, torch.bfloat16)
ROWS = 8
"""What the number of rows of x is padded to."""
FIRST_CAPABILITY = (8, 0)

# The positions that torch names for every mask of kept places, the first in the lower two bits.
# Where less than two are kept its choice differs from that of `NM`.
_POSITIONS = (14, 8, 9, 4, 14, 8, 9, 4, 14, 12, 13, 4, 14, 12, 13, 4)


def capability(target: Target) -> tuple[int, int]:
    """`(8, 0)` of `sm_80`.

    Raises:
        Reject: the target is no NVIDIA GPU, or one without 2:4 tensor cores.
    """
    gpu = target.gpu
    if gpu.vendor != "nvidia":
        raise Reject(f"2:4 tensor cores need an NVIDIA GPU, this is {gpu.arch}")
    if gpu.capability < FIRST_CAPABILITY:
        raise Reject(f"2:4 tensor cores need sm_80, this is {gpu.arch}")
    return gpu.capability


def check(spec: KernelSpec, library: str) -> None:
    """Return if the sparse tensor cores multiply weights like these exactly.

    Raises:
        Reject: another structure, codec, dtype, or activations that are rounded.
    """
    if spec.format.structure != NM(2, 4):
        raise Reject(f"{library} multiplies n_m[2:4], this is {spec.format.structure}")
    if spec.format.codec.family != "float":
        raise Reject(f"{library} is called for float values, these are {spec.format.codec}")
    if spec.dtype not in DTYPES:
        raise Reject(
            f"{library} is called for float16 and bfloat16, not for {spec.dtype}, which it rounds"
        )
    if spec.activations != "float":
        raise Reject(f"{library} does not round activations to {spec.activations}")


def compress(packed: Packed, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """A 2:4 weight as two kept values a group, and their positions as torch names them.

    Bit for bit what torch makes of `packed.unpack()`. Missing rows and columns are zeros.

    Args:
        packed: a weight in `n_m[2:4]/float`.
        rows: of what comes out, n or more.
        columns: of what it stands for, a multiple of 4, k or more.

    Returns:
        Values `[rows, columns / 2]` in the weight's dtype and positions `[rows, columns / 4]`
        uint8, the first of a group in bits 0 and 1, the second in bits 2 and 3.
    """
    n, k = packed.shape
    groups = -(-k // 4)
    codes = unpack_codes(packed.index["codes"], 4, groups)
    values = packed.values["values"].view(n, groups, 2)
    ours = torch.stack((codes & 3, codes >> 2), -1)
    kept = ((values != 0).to(torch.uint8) << ours).sum(-1, dtype=torch.uint8)
    theirs = torch.tensor(_POSITIONS, dtype=torch.uint8)[kept.int()]
    places = torch.stack((theirs & 3, theirs >> 2), -1)
    zero = torch.zeros((), dtype=values.dtype)
    chosen = torch.where(
        places == ours[..., :1],
        values[..., :1],
        torch.where(places == ours[..., 1:], values[..., 1:], zero),
    )
    more = (0, columns // 4 - groups, 0, rows - n)
    return (
        F.pad(chosen.reshape(n, groups * 2), (0, columns // 2 - groups * 2, 0, rows - n)),
        F.pad(theirs, more, value=_POSITIONS[0]),
    )


def padded(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple


def pad(x: Tensor, rows: int, columns: int) -> Tensor:
    """Zeros below and to the right of a matrix; the matrix itself where none are missing."""
    more = (0, columns - x.shape[1], 0, rows - x.shape[0])
    return F.pad(x, more) if more[1] != 0 or more[3] != 0 else x


def cost(
    nbytes: int,
    shape: tuple[int, int],
    aligned: tuple[int, int],
    dtype: torch.dtype,
    *,
    turned: bool,
) -> Cost:
    """What a call moves and computes, padding included.

    Args:
        nbytes: of the layout.
        shape: `(n, k)` of the weight.
        aligned: `(n, k)` that the library is given.
        dtype: of the weight.
        turned: whether the result has to be turned around.
    """
    import sympy

    from sparsecompile.formats.symbols import m
    from sparsecompile.kernels.cost import Cost

    (n, k), (rows, columns) = shape, aligned
    tokens = ROWS * sympy.ceiling(m / ROWS)
    is_whole: sympy.Expr = sympy.Eq(tokens, m)
    x_is_copied = sympy.true if columns != k else sympy.Not(is_whole)
    y_is_copied = sympy.true if rows != n or turned else sympy.Not(is_whole)
    moved = tokens * (rows + columns)
    moved += sympy.Piecewise((m * k + tokens * columns, x_is_copied), (0, True))
    moved += sympy.Piecewise((2 * m * n, y_is_copied), (0, True))
    # The sparse tensor cores skip the half that is not kept.
    kind = str(dtype).removeprefix("torch.")
    return Cost(nbytes + moved * dtype.itemsize, tokens * rows * columns, kind)
