"""What few rows ask of memory ahead: all that is read, and nothing beside it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from kernel_cases import KernelCase

from sparsecompile.codegen.cpp.build import load_built, open_library
from sparsecompile.codegen.cpp.strips import StripsLinear
from sparsecompile.codegen.host import host_cpu
from sparsecompile.errors import Reject
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry

LINE = 64
AHEAD = 4096
BEFORE = """
#include <immintrin.h>
#include <vector>
static std::vector<const void*> asked;
static void ask(const void* address) { asked.push_back(address); }
#define __builtin_prefetch ask
"""
AFTER = """
SC_EXPORT void ask_anew() { asked.clear(); }
SC_EXPORT int64_t asked_count() { return asked.size(); }
SC_EXPORT const void* const* asked_addresses() { return asked.data(); }
"""
SLACK = 384
"""Bytes at the end of a layout, at most, that mean nothing."""


class Arguments(ctypes.Structure):
    """`SCLinearArguments`."""

    _fields_: ClassVar[Sequence[tuple[str, Any]]] = (
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias", "operand0", "operand1")),
        *((name, ctypes.c_void_p) for name in ("y", "workspace")),
        *((name, ctypes.c_int64) for name in ("m", "threads", "in_region", "thread")),
    )


@dataclass(frozen=True)
class Asked:
    """Lines of a layout, counted from its begin: what was asked for, and where strips begin."""

    lines: frozenset[int]
    strips: Sequence[int]
    first: int
    end: int


def decode(
    library: ctypes.CDLL, layout: torch.Tensor, spec: KernelSpec, n: int, k: int, rows: int
) -> Asked:
    """Run one row of x through the kernel; strips have `rows` rows."""
    library.sc_workspace.restype = library.asked_count.restype = ctypes.c_int64
    library.asked_addresses.restype = ctypes.POINTER(ctypes.c_int64)
    memory = torch.zeros(layout.numel() + LINE, dtype=torch.uint8)
    memory = memory[-memory.data_ptr() % LINE :][: layout.numel()].copy_(layout)
    x, y = torch.ones(1, k, dtype=spec.dtype), torch.empty(1, n, dtype=spec.dtype)
    base = memory.data_ptr()
    nbytes = library.sc_workspace(ctypes.c_void_p(base), ctypes.c_int64(1), ctypes.c_int64(1))
    space = torch.empty(nbytes + LINE, dtype=torch.uint8)
    aligned = space[-space.data_ptr() % LINE :].data_ptr()
    call = Arguments(x.data_ptr(), base, None, None, None, y.data_ptr(), aligned, 1, 1)
    library.ask_anew()
    library.sc_linear_decode(ctypes.byref(call))
    found = library.asked_addresses()[: library.asked_count()]
    header = memory[:128].view(torch.int64)
    offsets, first, end = int(header[6]), int(header[10]), int(header[4]) - SLACK
    count = -(-n // rows)
    begins = memory[offsets : offsets + 8 * count].view(torch.int64).tolist()
    lines = frozenset((address - base) // LINE for address in found)
    return Asked(lines, [first + begin for begin in begins], first, end)


def weight(name: str, n: int, k: int, dtype: torch.dtype) -> torch.Tensor:
    """Every row is as full as the others: 2:4, half of it at random, or all of it."""
    dense = torch.ones(n, k, dtype=dtype)
    if name.startswith("n_m"):
        dense[:, torch.arange(k) % 4 < 2] = 0
    elif name == "bitmap":
        dense[torch.rand(n, k) < 0.5] = 0
    return dense


# Strips that are longer than what is asked for ahead, and shorter; not all in groups of four.
@pytest.mark.parametrize(("n", "k"), [(16 * 11, 4096), (16 * 22 + 3, 576), (16 * 9, 96)])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("dense/int4[group=32]", torch.bfloat16),
        ("dense/int8", torch.bfloat16),
        ("n_m[2:4]", torch.bfloat16),
        ("bitmap", torch.float32),
    ],
)
def test_all_of_it_and_nothing_else(
    name: str,
    dtype: torch.dtype,
    n: int,
    k: int,
    shared_cache: Path,
    registry: Registry,
    build_case: Callable[..., Kernel],
) -> None:
    template, target = StripsLinear(), Target.host()
    spec = KernelSpec(registry.format(name), dtype)
    try:
        template.supports(spec, target, registry)
    except Reject as refusal:
        pytest.skip(f"{host_cpu()}: {refusal.reason}")
    schedule = template.schedules(spec, target)[0]
    source = template.render(spec, schedule, target, registry)
    library = load_built(
        f"asking_{source.name}",
        "\n".join((BEFORE, source.text, AFTER)),
        lambda compiler: compiler.flags(target),
        open_library,
    )
    packed = spec.format.pack(weight(name, n, k, dtype))
    layout = build_case(KernelCase(template, schedule, spec)).prepack(packed)
    rows = schedule["strip_rows"]
    asked = decode(library, layout, spec, n, k, rows)
    # Lines of each strip that may be read unasked: of the first strips what comes before anything
    # is asked for; of the others the part that a tile over the end of the strip before is long,
    # and what strips of random weights are longer than the ones before.
    lengths = [b - a for a, b in zip(asked.strips, [*asked.strips[1:], asked.end], strict=True)]
    tile = rows * schedule["tile_columns"] * dtype.itemsize + LINE if name == "bitmap" else 0
    longer = max(lengths[:-1]) - min(lengths[:-1])
    for i, (begin, length) in enumerate(zip(asked.strips, lengths, strict=True)):
        lines = set(range(begin // LINE, -(-(begin + length) // LINE)))
        is_first = i < schedule["decode_streams"]
        allowed = min(length, AHEAD) if is_first else tile + longer
        assert len(lines - asked.lines) <= -(-allowed // LINE)
    beside = max(asked.lines) * LINE - asked.end
    assert min(asked.lines) * LINE >= asked.first
    assert beside <= SLACK + rows * schedule["tile_columns"] * dtype.itemsize
