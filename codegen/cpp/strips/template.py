"""The strips template: rows in the lanes of AVX2 or AVX-512 vectors, for any structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sparsecompile.codegen.cpp.strips.kinds import kind_of, kinds_of
from sparsecompile.codegen.cpp.strips.tiles import TILE_COLUMNS
from sparsecompile.codegen.cpp.strips.values import values_of
from sparsecompile.codegen.cpp.strips.vectors import DECODE_ROWS, vectors_for
from sparsecompile.codegen.cpp.template import CppTemplate
from sparsecompile.errors import Reject
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target, isa_at_least
from sparsecompile.registry import Registry

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost


class StripsLinear(CppTemplate):
    """Expands a stream of masks and values in registers (few rows of x) or in the cache (many).

    What tiles store, and how that is multiplied with many rows, is their kind's: see `kinds`.

    The layout is made by generated C++ from the canonical tensors, which the structure's fragment
    reads: a structure needs nothing of its own here.
    """

    name = "strips"
    kernels = (("sc_linear_decode", DECODE_ROWS), ("sc_linear_batch", None))
    stages = (("sc_linear_decode", DECODE_ROWS),)

    def supports(self, spec: KernelSpec, target: Target, registry: Registry) -> None:
        """Return if the instruction set and the values are among those that it is written for.

        Raises:
            Reject: another device or instruction set, no fragment, groups that are no whole tiles,
                tables of rows that are no whole strips, or an unknown epilogue step or rounding of
                x.
        """
        super().supports(spec, target, registry)
        if not isa_at_least(target.isa, "avx2"):
            raise Reject(f"needs AVX2, the target is {target.isa}")
        coding = spec.coding
        if coding.group and coding.group % TILE_COLUMNS:
            raise Reject(f"groups of {coding.group} columns are not whole tiles of {TILE_COLUMNS}")
        rows = vectors_for(spec, target).rows
        if coding.table_rows and coding.table_rows % rows:
            raise Reject(f"tables of {coding.table_rows} rows are not of whole strips of {rows}")
        if not coding.are_integers and spec.activations != "float":
            raise Reject(f"{spec.activations} activations need integer weights")

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """One for each kind of tiles that may be the best.

        Below `region_work` multiply-adds no other thread is woken; `panel_bytes` of x stay near.
        `decode_streams` strips are read at once for few rows of x, which in AVX-512 are multiplied
        as pairs where `decode_pairs`. `repeats_rows` multiplies many rows in integers, some at a
        time as if there were no more; in AVX2 a part of W is expanded to words once for all of
        them. `uses_amx` multiplies by tile registers. Other choices are those of the kind.
        """
        vectors = vectors_for(spec, target)
        shared = {"panel_bytes": 1 << 20, "region_work": 1 << 16}
        return tuple(
            Schedule.of(
                {
                    **shared,
                    **kind.names,
                    **vectors.decoding(spec, target),
                    **kind.choices(spec, target),
                }
            )
            for kind in kinds_of(vectors)
            if kind.fits(spec, target)
        )

    def search(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """The defaults, and each with one choice changed; layouts stay as they are."""
        found: dict[Schedule, None] = {}
        for default in self.schedules(spec, target):
            chosen = dict(default.choices)
            found[default] = None
            for name, values in kind_of(default).alternatives(chosen).items():
                found |= {Schedule.of({**chosen, name: value}): None for value in values}
        return tuple(found)

    def cost(self, spec: KernelSpec, schedule: Schedule, weight: Contents) -> Cost:
        """What the kind of tiles has to move and to multiply."""
        return kind_of(schedule).cost(spec, schedule, weight)

    def layout(self, schedule: Schedule) -> str:
        """What tiles store and their size make a layout."""
        kinds = ("strip_rows", "masked", "paired", "skips", "tile_columns")
        return " ".join((self.name, *(f"{kind}={schedule[kind]}" for kind in kinds)))

    def isa(self, schedule: Schedule, target: Target) -> str:
        """AVX2 where strips are as high as its vectors."""
        return kind_of(schedule).vectors.isa(target)

    def constants(self, spec: KernelSpec, schedule: Schedule) -> Mapping[str, int]:
        """What codes are, and how many columns of them a vector has."""
        kind = kind_of(schedule)
        return {
            "value_bits": kind.bits(spec),
            **values_of(spec).constants(),
            "depth": kind.depth(spec),
            "decode_rows": DECODE_ROWS,
            "integer_rows": kind.vectors.integer_rows(spec, kind.stores_all),
        }

    def files(self, spec: KernelSpec, schedule: Schedule) -> Sequence[str]:
        """The layout, how values and activations meet in it, and loops for few rows and many."""
        kind = kind_of(schedule)
        vectors = kind.vectors
        integer_rows = vectors.integer_rows(spec, kind.stores_all)
        layout = ("values", "ahead", *values_of(spec).files(kind.stores_all), "prepack")
        few: tuple[str, ...] = ()
        if integer_rows > 0:
            few = (vectors.integers_of_x, "strips/decode/integer.h")
        if integer_rows < DECODE_ROWS:
            few = (*few, "strips/decode/float.h")
        return (
            *("strips/layout/strips.h", vectors.file),
            *(f"strips/layout/{name}.h" for name in layout),
            *("finish.h", *few, "strips/decode/few.h", "strips/batch/share.h"),
            *(vectors.repeating if schedule["repeats_rows"] else kind.batch(schedule)),
        )


COMPONENTS = (StripsLinear(),)
