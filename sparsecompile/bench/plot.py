"""Rows of `bench linear` as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecompile.bench.cases import DTYPES
from sparsecompile.bench.linear import LinearRow
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.errors import SparseCompileError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def load_matplotlib() -> Any:
    """The module with figures that need no display.

    Raises:
        SparseCompileError: matplotlib is not installed.
    """
    try:
        from matplotlib import figure
    except ImportError as error:
        raise SparseCompileError(
            "--plot needs matplotlib, which is not installed: pip install matplotlib"
        ) from error
    return figure


def plot_linear(rows: Sequence[LinearRow], machine: Machine, path: Path) -> None:
    """For each shape and dtype: speed-up over `linear`, and bytes a second, against m.

    The dashed lines are limits of a dense linear: the read bandwidth, and below it what the peak
    multiply-add rate leaves at many rows.

    Args:
        rows: what `bench_linear` returned.
        machine: limits of the machine that measured.
        path: the file; its ending says what kind, such as `.png` or `.svg`.

    Raises:
        SparseCompileError: matplotlib is missing, or the file cannot be written.
    """
    groups = list(dict.fromkeys((row.shape, row.dtype) for row in rows))
    figure = load_matplotlib().Figure(figsize=(13, 4.5 * len(groups)), layout="constrained")
    axes = figure.subplots(len(groups), 2, squeeze=False)
    for (left, right), (shape, dtype) in zip(axes, groups, strict=True):
        members = [row for row in rows if (row.shape, row.dtype) == (shape, dtype)]
        title = f"{shape} {dtype}, {members[0].threads} threads"
        _lines(left, members, "speedup")
        left.axhline(1, color="grey", linewidth=0.8)
        left.set(title=title, xlabel="m, rows of x", ylabel="speed-up over F.linear")
        _lines(right, members, "gb_per_s")
        _roofline(right, members, machine)
        right.set(title=title, xlabel="m, rows of x", ylabel="weight, GB/s", yscale="log")
        for axis in (left, right):
            ticks = sorted({row.m for row in members})
            axis.set_xscale("log", base=2)
            axis.set_xticks(ticks, [str(m) for m in ticks])
            axis.legend(fontsize="x-small")
    figure.suptitle(f"{machine.cpu}, torch {rows[0].torch}, sparsecompile {rows[0].sparsecompile}")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise SparseCompileError(f"cannot write {path}: {error}") from error


def _lines(axis: Axes, rows: Iterable[LinearRow], field: str) -> None:
    """A line for each candidate of each format; the dense ones do not depend on the format."""
    lines: dict[str, dict[int, float]] = {}
    for row in rows:
        sparse = row.candidate.startswith("sparse")
        label = f"{row.format} {row.candidate}" if sparse else row.candidate
        lines.setdefault(label, {}).setdefault(row.m, getattr(row, field))
    for label, points in lines.items():
        marker, style = ("o", "-") if " " in label else (".", ":")
        axis.plot(list(points), list(points.values()), marker=marker, linestyle=style, label=label)


def _roofline(axis: Axes, rows: Sequence[LinearRow], machine: Machine) -> None:
    n, k = map(int, rows[0].shape.split("x"))
    nbytes = n * k * DTYPES[rows[0].dtype].itemsize
    peak = machine.float32_rate if rows[0].dtype == "float32" else machine.bfloat16_rate
    ms = sorted({row.m for row in rows})
    limits = [nbytes / max(nbytes / machine.read_bandwidth, 2 * m * n * k / peak) for m in ms]
    bandwidth = machine.read_bandwidth / 1e9
    axis.axhline(bandwidth, color="black", linestyle="--", label="read bandwidth")
    axis.plot(ms, [limit / 1e9 for limit in limits], "--", color="grey", label="limit of dense")
