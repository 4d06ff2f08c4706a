"""Analysis: what the compilers made of a kernel on one architecture, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparsecompile.codegen.triton.inspection.architecture import architecture
from sparsecompile.codegen.triton.inspection.occupancy import Occupancy

_NARROW = ("f16", "bf16", "i8", "f8E4M3FN", "f8E5M2")
"""Element types that every architecture here has matrix instructions for."""


@dataclass(frozen=True)
class Loads:
    """Reads from global memory that are for one line of the source.

    Attributes:
        line: its number; 0 where that is unknown.
        text: the line.
        bits: that a thread gets by one instruction; 0 for a tile that the copy engine moves.
        how: `registers`, or asynchronously into shared memory: `cp.async`, `tma`, `lds`.
        count: instructions.
    """

    line: int
    text: str
    bits: int
    how: str
    count: int

    @property
    def is_asynchronous(self) -> bool:
        """Whether they go to shared memory while the warp goes on."""
        return self.how != "registers"


@dataclass(frozen=True)
class LoopAnalysis:
    """One loop that reads global memory or multiplies matrices.

    Attributes:
        depth: 1 for a loop in no other.
        instructions: of one turn, those of loops inside it left out.
        matrix: matrix instructions among them, by name.
        loads: reads among them.
    """

    depth: int
    instructions: int
    matrix: Mapping[str, int]
    loads: tuple[Loads, ...]


@dataclass(frozen=True)
class Analysis:
    """What the compilers made of a kernel.

    Attributes:
        kernel: name of the function.
        target: name of the architecture.
        triton: version of Triton.
        options: of the compiler, such as `num_warps=4 num_stages=3`.
        registers: of a thread.
        stack: bytes of local memory of a thread.
        spills: instructions that move what no register is left for; on AMD, vector registers that
            were spilled.
        shared: bytes of shared memory of a block.
        warps: of a block.
        instructions: of the whole kernel.
        unit: what multiplies matrices: `mma.sync`, `wgmma`, `tcgen05`, `mfma`; None if nothing.
        matrix: matrix instructions by name, such as `{"HGMMA.64x16x16.F32": 8}`.
        dots: element types of the products in the source, such as `f16`.
        loops: those that read global memory or multiply matrices.
        loads: reads outside of loops.
        occupancy: blocks on a multiprocessor.
    """

    kernel: str
    target: str
    triton: str
    options: str
    registers: int
    stack: int
    spills: int
    shared: int
    warps: int
    instructions: int
    unit: str | None
    matrix: Mapping[str, int]
    dots: tuple[str, ...]
    loops: tuple[LoopAnalysis, ...]
    loads: tuple[Loads, ...]
    occupancy: Occupancy

    @property
    def faults(self) -> tuple[str, ...]:
        """Why it is not worth a measurement; empty if it is."""
        found, a = [], architecture(self.target)
        if self.spills or self.stack:
            found.append(
                f"{self.spills} spills, {self.stack} bytes of local memory a thread "
                f"({self.registers} registers)"
            )
        if self.shared > a.block_shared:
            found.append(f"{self.shared} bytes of shared memory, a block has {a.block_shared}")
        elif not self.occupancy.blocks:
            found.append(f"no block fits: {self.occupancy.limiter}")
        narrow = [kind for kind in self.dots if kind in _NARROW]
        if narrow and self.unit is None:
            found.append(f"a product of {', '.join(narrow)} without matrix instructions")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """All of it, with `faults`, for JSON."""
        return {**asdict(self), "faults": list(self.faults)}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Analysis:
        """The inverse of `asdict`."""
        loops = [{**loop, "loads": _loads(loop["loads"])} for loop in facts["loops"]]
        return cls(
            **{
                **facts,
                "dots": tuple(facts["dots"]),
                "loops": tuple(LoopAnalysis(**loop) for loop in loops),
                "loads": _loads(facts["loads"]),
                "occupancy": Occupancy(**facts["occupancy"]),
            }
        )


def _loads(facts: Sequence[Mapping[str, Any]]) -> tuple[Loads, ...]:
    return tuple(Loads(**load) for load in facts)
