"""What stored values stand for, in Triton, where that is more than an integer times a scale."""

from __future__ import annotations

from sparsecompile.codegen.triton.fragment import ELEMENTS
from sparsecompile.formats.coding import Coding
from sparsecompile.kernels.spec import KernelSpec

WHOLE_ROWS = 1 << 30
"""Columns of a group that no row is longer than."""

TEXT = '''\
@triton.jit
def decoded(weight, value, scales, offsets, rows, n, k):
    """What codes stand for{rounded}, zero where `value` is: it is one more than the code."""
    code = value.to(tl.int32) - 1
{lines}
    return tl.where(value != 0, found{rounding}, 0.0)


@triton.jit
def decoded_at(weight, value, rows, columns, there, n, k):
    """The same for values in these places."""
{at}
    return decoded(weight, value, scales, offsets, rows, n, k)


@triton.jit
def decoded_in(weight, value, rows, inside, first, n, k, COUNT: tl.constexpr):
    """The same for COUNT columns of each row from `first` on."""
{within}
    return decoded(weight, value, scales, offsets, rows[:, None], n, k)
'''


def is_decoded(coding: Coding) -> bool:
    """Whether values are decoded before they are multiplied."""
    return coding.kind != "float" and not coding.is_scaled


def group_of(coding: Coding) -> int | None:
    """Columns that share a scale as kernels read it: values that are decoded have it at once."""
    return WHOLE_ROWS if is_decoded(coding) and coding.group == 0 else coding.group


def parts_of(spec: KernelSpec) -> dict[str, str]:
    """Bytes of the parts of a layout that belong to values, in Triton."""
    coding, group = spec.coding, group_of(spec.coding)
    groups = f"tl.cdiv(k, {group})" if group else "1"
    sizes = {} if group is None else {"scales": f"rows * {groups} * {coding.scales.itemsize}"}
    if coding.offsets is not None:
        sizes["offsets"] = f"rows * {groups} * {_offset_bytes(coding)}"
    if coding.kind == "table":
        tables = f"tl.cdiv(rows, {coding.table_rows})" if coding.table_rows else "1"
        entry = spec.dtype.itemsize if coding.table_rows is not None else 4
        sizes["table"] = f"{tables} * {entry << coding.bits}"
    return sizes


def render_decoding(spec: KernelSpec) -> str:
    """`decoded_at` and `decoded_in`; nothing where values are not decoded."""
    coding = spec.coding
    if not is_decoded(coding):
        return ""
    element = ELEMENTS[spec.dtype]
    read = ["scales"] * (coding.group is not None) + ["offsets"] * (coding.offsets is not None)
    missing = [f"{name} = 0.0" for name in ("scales", "offsets") if name not in read]
    at, within = [*missing], [*missing]
    for name in read:
        at.append(f"{name} = {name}_at(weight, rows, columns, there, n, k)")
        within.append(f"{name} = {name}_in(weight, rows, inside, first, n, k, COUNT)")
    rounds = f".to(tl.{element}).to(tl.float32)" if coding.rounds else ""
    return TEXT.format(
        rounded=f" in {element}" if coding.rounds else "",
        rounding=rounds,
        lines=_indented(_lines(spec)),
        at=_indented(at),
        within=_indented(within),
    )


def decode(coding: Coding, how: str, places: str, indent: int = 4) -> str:
    """A line that decodes `value`; nothing where it stays what it is.

    Args:
        coding: of the values.
        how: `at` or `in`.
        places: arguments of `decoded_at` or `decoded_in` behind the value.
        indent: of the line.
    """
    if not is_decoded(coding):
        return ""
    return f"{' ' * indent}value = decoded_{how}(weight, value, {places})\n"


def _lines(spec: KernelSpec) -> list[str]:
    coding = spec.coding
    times = " * scales" if coding.group is not None else ""
    if coding.kind == "fp8":
        power = 127 - (2 ** (coding.exponent - 1) - 1)
        shift = 16 + coding.exponent
        return [
            "# Shifted into place the exponent is off by a power of two.",
            f"bits = (code & 127) << {shift}",
            f"magnitude = bits.to(tl.float32, bitcast=True) * {float(2**power)!r}",
            f"found = tl.where(code > 127, -magnitude, magnitude){times}",
        ]
    if coding.kind == "table":
        element = ELEMENTS[spec.dtype] if coding.table_rows is not None else "float32"
        row = f"rows // {coding.table_rows} * {1 << coding.bits} + " if coding.table_rows else ""
        return [
            f"table = table_part(weight, n, k).to(tl.pointer_type(tl.{element}))",
            f"entries = tl.load(table + ({row}code), mask=value != 0, other=0.0)",
            f"found = entries.to(tl.float32){times}",
        ]
    if coding.offsets == "minima":
        return ["found = code.to(tl.float32) * scales + offsets"]
    zero = "offsets" if coding.offsets else f"{2 ** (coding.bits - 1)}.0"
    return [f"found = (code.to(tl.float32) - {zero}) * scales"]


def _indented(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _offset_bytes(coding: Coding) -> int:
    return coding.scales.itemsize if coding.offsets == "minima" else 1
