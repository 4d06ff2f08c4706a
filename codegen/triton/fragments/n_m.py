"""`n_m` in Triton."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.codegen.triton.fragment import TILE, TritonStructure
from sparsecompile.codegen.triton.fragments.mask import TritonMask
from sparsecompile.errors import Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Packed
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.structures.n_m import NM

WIDEST = 16

HEAD = '''\
# {name}: {meaning}.
# Of a tile of {tile} columns a row holds the first kept value of every group, then every second
# one, ...; the codes of its {groups} groups are in {words} words: word w has those of the groups
# w, w + {words}, w + {twice}, ..., {bits} bits each, the first lowest.
@triton.jit
def load_tile(weight, rows, inside, tile, n, k):
    """One tile of some rows, `[rows, {tile}]`, put together in registers."""
    at = rows.to(tl.int64) * tl.cdiv(k, {tile}) + tile
    words = words_part(weight, n, k).to(tl.pointer_type(tl.int32))
    places = at[:, None] * {words} + tl.arange(0, {words})[None, :]
    word = tl.load(words + places, mask=inside[:, None], other=0)
    code = word[:, None, :] >> (tl.arange(0, {per_word}) * {bits})[None, :, None]
    code = code.reshape(rows.shape[0], {groups})
    values = values_part(weight, n, k)
'''


class TritonNM(TritonStructure):
    """Kept values in planes: the first of every group, the second ones, and so on."""

    family = "n_m"
    reads = "tiles"

    def reader(self, structure: Structure) -> TritonStructure:
        """Groups that do not divide a tile, or are too wide for registers, are read by masks."""
        size = _nm(structure).m
        return self if size <= WIDEST and TILE % size == 0 else _BY_MASK

    def arrange(self, packed: Packed, values: Tensor) -> dict[str, Tensor]:
        """`values` `[n, tiles, kept, groups]`, `words` `[n, tiles, words]` int32."""
        nm, (n, k) = _nm(packed.format.structure), packed.shape
        tiles, groups = -(-k // TILE), TILE // nm.m
        own = -(-k // nm.m)
        missing, bits, words_a_tile = tiles * groups - own, _code_bits(nm), _words(nm)
        planes = F.pad(values.view(n, own, nm.n), (0, 0, 0, missing))
        planes = planes.view(n, tiles, groups, nm.n)
        positions = (packed.places.flat % nm.m).view(n, own, nm.n)
        code = F.pad(_codes(nm, positions), (0, missing))
        code = code.view(n, tiles, groups // words_a_tile, words_a_tile)
        shifts = torch.arange(groups // words_a_tile)[:, None] * bits
        # Bits do not overlap: the sum is their union, as an unsigned number.
        words = (code << shifts).sum(2)
        words = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
        return {"words": words, "values": planes.transpose(2, 3)}

    def sizes(self, structure: Structure) -> Mapping[str, str]:
        """Four bytes a word."""
        return {"words": f"rows * tiles * {4 * _words(_nm(structure))}"}

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """`load_tile`."""
        nm = _nm(part)
        bits, words, groups = _code_bits(nm), _words(nm), TILE // nm.m
        by_position = _by_position(nm)
        meaning = (
            "the code of a group is the positions of its kept values, the first lowest"
            if by_position
            else "the code of a group is the mask of its kept columns, the first lowest"
        )
        head = HEAD.format(
            name=part,
            meaning=meaning,
            tile=TILE,
            groups=groups,
            words=words,
            twice=2 * words,
            bits=bits,
            per_word=32 // bits,
        )
        stored = f"at * {TILE * nm.n // nm.m}"
        lines = [
            f"v{p} = values_in(values, {stored}{f' + {p * groups}' if p else ''}, inside, {groups})"
            for p in range(nm.n)
        ]
        lines.append("zero = tl.zeros_like(v0)")
        lines.append(f"# c0 ... c{nm.m - 1}: the columns of each group, a kept value or zero.")
        lines += _select_by_position(nm) if by_position else _select_by_mask(nm)
        columns = _interleave([f"c{j}" for j in range(nm.m)])
        lines.append(
            "# A join adds a dimension, the innermost one: c0, c1, ... end up side by side."
        )
        lines.append(f"tile_of_rows = {columns}")
        lines.append(f"return tile_of_rows.reshape(rows.shape[0], {TILE})")
        return head + "".join(f"    {line}\n" for line in lines)


class _ByMask(TritonMask):
    """Groups of any size."""

    family = "n_m"


_BY_MASK = _ByMask()


def _nm(structure: object) -> NM:
    if not isinstance(structure, NM):
        raise Reject(f"{structure} is not an n:m structure")
    return structure


def _position_bits(nm: NM) -> int:
    return (nm.m - 1).bit_length()


def _by_position(nm: NM) -> bool:
    """Whether the positions take no more bits than the mask."""
    return _power_of_two(nm.n * _position_bits(nm)) <= nm.m


def _code_bits(nm: NM) -> int:
    return _power_of_two(nm.n * _position_bits(nm)) if _by_position(nm) else nm.m


def _words(nm: NM) -> int:
    return TILE // nm.m * _code_bits(nm) // 32


def _codes(nm: NM, positions: Tensor) -> Tensor:
    """`[n, groups, kept]` ascending positions to `[n, groups]` codes, int64."""
    if _by_position(nm):
        return (positions << torch.arange(nm.n) * _position_bits(nm)).sum(2)
    return (torch.ones_like(positions) << positions).sum(2)


def _select_by_position(nm: NM) -> list[str]:
    """A value belongs to the column that its position names."""
    bits, mask = _position_bits(nm), nm.m - 1
    names = ", ".join(f"p{p}" for p in range(nm.n))
    lines = [f"# {names}: the position in its group of each kept value."]
    lines += [f"p{p} = {_shifted(p * bits)} & {mask}" for p in range(nm.n)]
    for j in range(nm.m):
        # Nested: in this order ptxas takes fewer registers than with a line each.
        text = "zero"
        for p in reversed(_candidates(nm, j)):
            text = f"tl.where(p{p} == {j}, v{p}, {text})"
        lines.append(f"c{j} = {text}")
    return lines


def _select_by_mask(nm: NM) -> list[str]:
    """A kept column has as many values before it as there are bits below its own."""
    lines = ["# b0: whether column 0 is kept; before0: how many are before it; and so on."]
    for j in range(nm.m):
        *others, rest = _candidates(nm, j)
        lines.append(f"b{j} = {_shifted(j)} & 1")
        if j < nm.m - 1:
            count = f"before{j - 1} + b{j - 1}" if j else "tl.zeros_like(b0)"
            lines.append(f"before{j} = {count}")
        chosen = f"v{rest}"
        for p in reversed(others):
            lines.append(f"c{j} = tl.where(before{j} == {p}, v{p}, {chosen})")
            chosen = f"c{j}"
        lines.append(f"c{j} = tl.where(b{j} == 1, {chosen}, zero)")
    return lines


def _shifted(bits: int) -> str:
    return f"(code >> {bits})" if bits else "code"


def _candidates(nm: NM, column: int) -> list[int]:
    """Which of a group's values may stand in a column: before and after it others have to fit."""
    return list(range(max(0, column - (nm.m - nm.n)), min(column, nm.n - 1) + 1))


def _interleave(names: list[str]) -> str:
    """Nested joins whose flat order is that of the names."""
    if len(names) == 1:
        return names[0]
    return f"tl.join({_interleave(names[::2])}, {_interleave(names[1::2])})"


def _power_of_two(value: int) -> int:
    return 1 << (value - 1).bit_length()


COMPONENTS = (TritonNM(),)
