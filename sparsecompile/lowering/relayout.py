"""One layout of a weight for all graphs that read it, chosen again when another m comes."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor

from sparsecompile.errors import BuildError, CacheError
from sparsecompile.kernels.codegen import Device
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.kernel import Lowering
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.lowering.compiled_graph import CompiledGraph
from sparsecompile.lowering.lowered import Lowered
from sparsecompile.lowering.readers import Reading
from sparsecompile.lowering.slots import READERS, PackedSlot
from sparsecompile.weights.cache import PACK_CACHE
from sparsecompile.weights.expression import Binding
from sparsecompile.weights.packing import packer

logger = logging.getLogger("sparsecompile")
Live: TypeAlias = Callable[[Binding], tuple[Tensor, ...]]


def share_layouts(
    calls: Mapping[PackedSlot, Sequence[Lowered]],
    graph: CompiledGraph,
    live: Live,
    device: Device,
    tell: Callable[[Lowered], None],
) -> None:
    """Let other graphs read the layouts that a new one was compiled for.

    They get the kernels for their own m that read these, under the names that they call kernels by:
    so there is still one copy of a weight. Where code generation never `switches`, all graphs
    compare layouts at the same m, and each keeps what it was compiled for.

    Args:
        calls: the nodes of the new graph by the slots that they read.
        graph: the new graph.
        live: the live tensors that it is compiled for, of a binding.
        device: where its kernels run.
        tell: is told what serves a node of it, whenever that changes.
    """
    if not device.codegen.switches:
        return
    for slot, nodes in calls.items():
        READERS.set(slot, Reading(device, tuple(nodes), tell, weakref.WeakMethod(graph.forget)))
    lowerings: dict[Problem, Lowering] = {}
    for slot in calls:
        _share(slot, live(slot.binding), device, lowerings)


def _share(
    slot: PackedSlot,
    tensors: tuple[Tensor, ...],
    device: Device,
    lowerings: dict[Problem, Lowering],
) -> None:
    """Let all graphs that read the weight of a slot read its layout; `lowerings` grow."""
    layout = slot.kernel.layout
    same = READERS.of(slot.binding, tensors, slot.format, device)
    apart = [(other, reading) for other, reading in same if other.kernel.layout != layout]
    if not apart:
        return
    why = f"layout chosen again for {_rows([low.problem for _, r in same for low in r.calls])}"
    names = ", ".join(leaf.name for leaf in slot.binding.leaves())
    logger.info("%s: %s: %s", names, why, layout)
    for other, reading in same:
        if (other, reading) not in apart:
            _tell(other, reading, reading.calls, why)
    for other, reading in apart:
        try:
            calls = _lowered_anew(reading, slot, tensors, lowerings)
        except (BuildError, CacheError) as error:
            kept = f"a layout of its own is kept, since there is no kernel for {layout}: {error}"
            logger.warning("%s: %s", names, kept)
            _tell(other, reading, reading.calls, kept)
            continue
        _switch(other, reading, calls)
        _tell(other, reading, calls, why)
    PACK_CACHE.epoch += 1


def _lowered_anew(
    reading: Reading,
    slot: PackedSlot,
    tensors: tuple[Tensor, ...],
    lowerings: dict[Problem, Lowering],
) -> tuple[Lowered, ...]:
    """The calls of another graph with kernels for the layout of a slot.

    Layers of a model have the same problems, which are decided once.

    Raises:
        BuildError: the compiler is missing or failed.
        CacheError: the cache folder cannot be used.
    """
    problems = [_with_layout(low, slot.kernel.layout) for low in reading.calls]
    pack = packer(slot.binding, tensors, slot.format)
    if new := [problem for problem in problems if problem not in lowerings]:
        lowerings |= reading.device.lower(dict.fromkeys(new, lambda: Contents(pack())))
    return tuple(
        replace(low, lowering=lowerings[problem], nbytes=slot.nbytes(tensors) + low.copy_bytes)
        for low, problem in zip(reading.calls, problems, strict=True)
    )


def _switch(slot: PackedSlot, reading: Reading, calls: Sequence[Lowered]) -> None:
    """Let a slot hand out another layout, and let go of the one that it handed out."""
    old, kernels = slot.purpose, [(low.call, low.kernel) for low in calls if low.kernel is not None]
    # Before the graph is handed the layout.
    for call, kernel in kernels:
        reading.device.codegen.serve(call, kernel)
    for _, kernel in kernels[:1]:
        slot.kernel = kernel
    for first, weight in READERS.weights(slot):
        PACK_CACHE.release(first, weight, old)
    forget = reading.forget()
    if forget is not None:
        forget()


def _tell(slot: PackedSlot, reading: Reading, calls: Sequence[Lowered], why: str) -> None:
    """Report what serves the calls of a graph now, and why."""
    told = tuple(replace(low, lowering=low.lowering.because(why)) for low in calls)
    READERS.set(slot, replace(reading, calls=told))
    for low in told:
        reading.tell(low)


def _with_layout(low: Lowered, layout: str) -> Problem:
    """The problem of a node whose graph is compiled: it reads this layout, and dense if it can."""
    problem = low.problem
    dense = problem.dense if low.has_dense else DenseUse.NEVER
    return replace(problem, layout=layout, layout_rows=problem.rows, dense=dense)


def _rows(problems: Sequence[Problem]) -> str:
    """`m = 1 and 128`, `any m`."""
    if any(problem.is_dynamic for problem in problems):
        return "any m"
    *rest, last = map(str, sorted({m for problem in problems for m in problem.rows}))
    return f"m = {' and '.join(filter(None, (', '.join(rest), last)))}"
