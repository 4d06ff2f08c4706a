"""Occupancy: how many blocks of a kernel a multiprocessor holds, and what limits them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsecompile.codegen.triton.inspection.architecture import Architecture


@dataclass(frozen=True)
class Occupancy:
    """What a multiprocessor holds of a kernel.

    Attributes:
        blocks: of it at a time; 0 where not even one fits.
        share: of the warps that the multiprocessor could hold.
        limits: blocks that each of `registers`, `shared memory`, `warps` and `blocks` allows.
        limiter: the scarcest of them.
    """

    blocks: int
    share: float
    limits: Mapping[str, int]
    limiter: str


def occupancy(architecture: Architecture, registers: int, shared: int, warps: int) -> Occupancy:
    """The occupancy of a kernel.

    Args:
        architecture: where it runs.
        registers: of a thread.
        shared: bytes of a block.
        warps: of a block.
    """
    a = architecture
    of_warp = _round_up(max(registers, 1) * a.gpu.warp_size, a.register_unit)
    of_block = _round_up(shared, a.shared_unit) + a.reserved_shared
    limits = {
        "registers": a.partitions * (a.registers // of_warp) // warps,
        "shared memory": a.shared // of_block if of_block else a.blocks,
        "warps": a.warps // warps,
        "blocks": a.blocks,
    }
    if registers > a.thread_registers:
        limits["registers"] = 0
    if shared > a.block_shared:
        limits["shared memory"] = 0
    limiter = min(limits, key=limits.__getitem__)
    blocks = limits[limiter]
    return Occupancy(blocks, blocks * warps / a.warps, limits, limiter)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
