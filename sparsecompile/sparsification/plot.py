"""An allocation as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsecompile.errors import SparseCompileError
from sparsecompile.sparsification.budget import Allocation


def plot_allocation(allocation: Allocation, path: Path) -> None:
    """Loss against cost, as a share of dense.

    Raises:
        SparseCompileError: matplotlib is not installed.
    """
    try:
        from matplotlib import figure
    except ImportError as error:
        raise SparseCompileError(
            "a plot needs matplotlib, which is not installed: pip install matplotlib"
        ) from error
    drawn = figure.Figure(figsize=(7, 4.5), layout="constrained")
    axes: Any = drawn.subplots()
    points = [(o.cost / allocation.dense, o.loss) for o in allocation.frontier]
    axes.plot(*zip(*points, strict=True), label="best choices for every budget")
    for text, option in allocation.uniform.items():
        place = (option.cost / allocation.dense, option.loss)
        axes.plot(*place, "o", color="grey")
        axes.annotate(text, place, xytext=(5, 5), textcoords="offset points")
    axes.plot(allocation.cost / allocation.dense, allocation.loss, "*", ms=12, label="chosen")
    axes.axvline(allocation.limit / allocation.dense, color="grey", linewidth=0.8)
    axes.set(xlabel=f"{allocation.unit}, share of dense", ylabel="loss of the held batch")
    axes.legend()
    drawn.savefig(path)
