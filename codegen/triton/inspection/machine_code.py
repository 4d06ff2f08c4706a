"""MachineCode: one compiled kernel, the same for every GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparsecompile.codegen.triton.inspection.listing import Instruction


@dataclass(frozen=True)
class Load:
    """A read from global memory.

    Attributes:
        line: of the Triton source that it is for; 0 where that is unknown.
        bits: that a thread gets; 0 for a tile that the copy engine moves.
        how: `registers`, or asynchronously into shared memory: `cp.async`, `tma`, `lds`.
    """

    line: int
    bits: int
    how: str


@dataclass(frozen=True)
class MachineCode:
    """What the compilers made of one kernel.

    Attributes:
        registers: of a thread.
        stack: bytes of local memory of a thread.
        spills: instructions that move what no register is left for; on AMD, vector registers that
            were spilled.
        listing: its instructions.
        matrix: the kind of matrix instruction that one is, if any.
        load: the read from global memory that one is, if any.
    """

    registers: int
    stack: int
    spills: int
    listing: tuple[Instruction, ...]
    matrix: Callable[[Instruction], str | None]
    load: Callable[[Instruction], Load | None]
