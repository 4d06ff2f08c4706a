"""The strips template: rows in the lanes of AVX2 or AVX-512 vectors, for any structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sparsecompile.codegen.cpp.fragment import Codes, fragment_of
from sparsecompile.codegen.cpp.template import CppTemplate
from sparsecompile.errors import Reject
from sparsecompile.kernels.problem import Contents
from sparsecompile.kernels.spec import KernelSpec, Schedule, Target, isa_at_least
from sparsecompile.registry import Registry

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost

DECODE_ROWS = 8
TILE_COLUMNS = 32
AVX2_ROWS, AVX512_ROWS = 8, 16
LISTING = 46
"""Operations that a core could do in the time in which a place is listed, as measured in AVX2."""


@dataclass(frozen=True)
class StripsLinear(CppTemplate):
    """Expands a stream of masks and values in registers (few rows of x) or in the cache (many).

    Where a structure promises that of four columns two are kept at most, tiles store pairs, and
    what is permuted to meet them is x: nothing is expanded, and nothing else is multiplied.

    The layout is made by generated C++ from the canonical tensors, which the structure's fragment
    reads: a structure needs nothing of its own here.
    """

    name = "strips"
    kernels = (("sc_linear_decode", DECODE_ROWS), ("sc_linear_batch", None))

    def supports(self, spec: KernelSpec, target: Target, registry: Registry) -> None:
        """Return if the instruction set and the values are among those that it is written for.

        Raises:
            Reject: another device or instruction set, no fragment, values that are no codes, groups
                that are no whole tiles, or an unknown epilogue step or rounding of x.
        """
        super().supports(spec, target, registry)
        if not isa_at_least(target.isa, "avx2"):
            raise Reject(f"needs AVX2, the target is {target.isa}")
        codes = fragment_of(registry, spec.format.codec).codes(spec.format.codec, spec)
        if codes is None:
            raise Reject(f"the values of {spec.format.codec} are no codes of one width")
        if codes.group and codes.group % TILE_COLUMNS:
            raise Reject(f"groups of {codes.group} columns are not whole tiles of {TILE_COLUMNS}")
        if codes.group is None and spec.activations != "float":
            raise Reject(f"{spec.activations} activations need integer weights")

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """What tiles store, and how they are multiplied with many rows of x.

        A `masked` tile stores one bit a value and the values that are not zero; where `skips`,
        tiles of `tile_columns` columns without any value are not stored; a `paired` tile stores two
        values of every four columns. Below `region_work` multiply-adds no other thread is woken.
        `batch_columns` columns of W are expanded at once, beside `panel_bytes` of x; those of
        paired tiles are multiplied as they are, `step_tiles` of `block_strips` strips times
        `block_rows` rows of x, `x_vectors` vectors of them at once. So are `lists` that are made of
        masked tiles while they are near, an entry for `columns_of_word` columns. `repeats_rows`
        multiplies rows of x in integers, some at a time as if there were no more; in AVX2 a part of
        W is expanded to words once for all of them. `group_strips` strips share a tile of x while
        it is near; where tiles are skipped, only those that skip the same ones.
        """
        return tuple(_schedule(spec, target, kind) for kind in _kinds(spec, target))

    def search(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """The defaults, and each with one choice changed; layouts stay as they are."""
        found: dict[Schedule, None] = {}
        for default in self.schedules(spec, target):
            chosen = dict(default.choices)
            found[default] = None
            for name, values in _alternatives(chosen).items():
                found |= {Schedule.of({**chosen, name: value}): None for value in values}
        return tuple(found)

    def cost(self, spec: KernelSpec, schedule: Schedule, weight: Contents) -> Cost:
        """One bit a place and the values, or whole tiles; all that is stored is multiplied."""
        import sympy

        from sparsecompile.formats.symbols import m
        from sparsecompile.kernels.cost import Cost

        (n, k), rows, columns = weight.shape, schedule["strip_rows"], schedule["tile_columns"]
        places = -(-n // rows) * rows * -(-k // columns) * columns
        if schedule["skips"]:
            places = weight.tiles(rows, columns) * rows * columns
        multiplied = places // 2 if schedule["paired"] else places
        stored = weight.values if schedule["masked"] else multiplied
        has_bits = schedule["masked"] or schedule["paired"]
        stream = (places * has_bits + stored * weight.value_bits) // 8
        kind = "bfloat16" if spec.dtype == torch.bfloat16 else "float32"
        is_paired = schedule["paired"] and rows == AVX2_ROWS
        if schedule["repeats_rows"] or (is_paired and _by_integers(spec)):
            kind = "int8"
        operations = 2 * m * multiplied
        if schedule["lists"] and rows == AVX2_ROWS:
            # Untimed elsewhere, where thus both are measured.
            listed = 2 * m * weight.values + LISTING * places
            operations = sympy.Piecewise((operations, m <= DECODE_ROWS), (listed, True))
        return Cost(stream + m * (n + k) * spec.dtype.itemsize, operations, kind)

    def layout(self, schedule: Schedule) -> str:
        """What tiles store and their size make a layout."""
        kinds = ("strip_rows", "masked", "paired", "skips", "tile_columns")
        return " ".join((self.name, *(f"{kind}={schedule[kind]}" for kind in kinds)))

    def isa(self, schedule: Schedule, target: Target) -> str:
        """AVX2 where strips are as high as its vectors."""
        return "avx2" if schedule["strip_rows"] == AVX2_ROWS else target.isa

    def constants(
        self, spec: KernelSpec, schedule: Schedule, codes: Codes | None
    ) -> Mapping[str, int]:
        """What codes are, and how many columns of them a vector has."""
        if codes is None:
            raise TypeError(f"{spec.format.codec} has no codes")
        depth = 2 if spec.dtype == torch.bfloat16 else 1
        if codes.group is not None:
            depth = 2 if schedule["paired"] and schedule["strip_rows"] == AVX2_ROWS else 4
        return {
            "value_bits": codes.bits,
            "cut": codes.cut,
            "has_scales": int(codes.group is not None),
            "group_columns": codes.group or 0,
            "depth": depth,
            "decode_rows": DECODE_ROWS,
            "integer_rows": _integer_rows(spec, schedule["strip_rows"] == AVX2_ROWS),
        }

    def files(self, spec: KernelSpec, schedule: Schedule, codes: Codes | None) -> Sequence[str]:
        """The layout, how values and activations meet in it, and loops for few rows and many."""
        is_integer = codes is not None and codes.group is not None
        by_avx2 = schedule["strip_rows"] == AVX2_ROWS
        level = "strips_avx2.h" if by_avx2 else "strips_avx512.h"
        values = "strips_integer.h" if is_integer else "strips_float.h"
        integer_rows = _integer_rows(spec, by_avx2)
        few: tuple[str, ...] = ("strips_decode.h",) if integer_rows < DECODE_ROWS else ()
        if integer_rows > 0:
            x = "strips_x_words.h" if by_avx2 else "strips_x_integer.h"
            few = (x, "strips_decode_integer.h", *few)
        tiles = "strips_amx.h" if schedule["uses_amx"] else "strips_no_tiles.h"
        many: tuple[str, ...] = ("strips_chunk.h", "strips_vectors.h", tiles, "strips_batch.h")
        if schedule["repeats_rows"]:
            many = ("strips_groups.h", "strips_words.h" if by_avx2 else "strips_rows.h")
        elif schedule["paired"] or schedule["lists"]:
            many = ("transpose.h", "strips_x_tiles.h", *_kept(schedule), "strips_kept.h")
        return (
            *("strips.h", level, "strips_values.h", "strips_ahead.h", values, "strips_prepack.h"),
            *("finish.h", *few, "strips_few.h", "strips_share.h", *many),
        )


def _rounds(spec: KernelSpec) -> bool:
    """Whether 16 bits a row of x are enough: float16's own are finer where elements are small."""
    return spec.activations == "int8" or spec.dtype == torch.bfloat16


def _integer_rows(spec: KernelSpec, by_avx2: bool) -> int:
    """Up to how many rows of x are multiplied with integers as integers.

    In AVX2 one or two of more bits than 16, as two planes: more rows take longer than as floats.
    """
    if spec.format.codec.lossless:
        return 0
    return DECODE_ROWS if _rounds(spec) else 2 * by_avx2


def _by_integers(spec: KernelSpec) -> bool:
    """Whether values are integers, and many rows of x become such."""
    return not spec.format.codec.lossless and _rounds(spec)


def _kept(schedule: Schedule) -> tuple[str, ...]:
    """As what many rows of x, and what is kept of tiles, are multiplied."""
    by_floats = schedule["columns_of_word"] == 1
    x = "strips_x_floats.h" if by_floats else "strips_x_pairs.h"
    if schedule["lists"]:
        return ("strips_x_as_it_is.h", x, "lists_multiply.h", "strips_lists.h")
    if by_floats:
        return ("strips_x_as_it_is.h", x, "strips_pairs_floats.h")
    if schedule["strip_rows"] == AVX2_ROWS:
        return ("strips_pairs_choices.h", "strips_pairs_words.h")
    return ("strips_pairs_choices.h", x, "strips_pairs_bfloat16.h")


def _kinds(spec: KernelSpec, target: Target) -> list[dict[str, int]]:
    """What tiles may store: everything, or less."""
    rows = AVX512_ROWS if isa_at_least(target.isa, "avx512") else AVX2_ROWS
    if target.isa == "avx512" and not spec.format.codec.lossless:
        # In 512 bits integers are written with VNNI and VBMI2.
        rows = AVX2_ROWS
    whole = {"strip_rows": rows, "masked": 0, "lists": 0, "paired": 0, "skips": 0}
    whole["tile_columns"] = TILE_COLUMNS
    if spec.format.structure.index_bits() == 0:
        return [whole]
    kinds = [{**whole, "masked": 1}, {**whole, "skips": 1}]
    # What is kept takes longer than everything where integers or tiles are multiplied.
    if rows == AVX2_ROWS or not (spec.activations == "int8" or _fits_tiles(spec, target)):
        kinds.append({**whole, "masked": 1, "lists": 1})
    kinds.append({**whole, "skips": 1, "tile_columns": TILE_COLUMNS // 2})
    # In AVX-512 pairs of bfloat16 are permuted as such; tile registers multiply what is not kept of
    # them in less time than vectors what is.
    by_floats = spec.format.codec.lossless and spec.dtype != torch.bfloat16
    by_pairs = spec.dtype == torch.bfloat16 and target.isa == "avx512_bf16"
    can_pair = rows == AVX2_ROWS or by_floats or by_pairs
    if can_pair and spec.format.structure.most_kept(4) <= 2:
        kinds.insert(0, {**whole, "paired": 1})
    return kinds


def _schedule(spec: KernelSpec, target: Target, kind: Mapping[str, int]) -> Schedule:
    by_avx2 = kind["strip_rows"] == AVX2_ROWS
    choices = _avx2_choices(spec, kind) if by_avx2 else _avx512_choices(spec, target, kind)
    return Schedule.of({"panel_bytes": 1 << 20, "region_work": 1 << 16, **kind, **choices})


def _avx2_choices(spec: KernelSpec, kind: Mapping[str, int]) -> dict[str, int]:
    """First-level caches hold a chunk of some strips beside a tile of x; 8 sums fit registers."""
    choices = {
        "decode_streams": 2 if spec.format.codec.lossless else 1,
        "decode_pairs": 0,
        "repeats_rows": int(_by_integers(spec) and not kind["paired"] and not kind["lists"]),
        "uses_amx": 0,
    }
    if kind["paired"]:
        choices |= {"block_strips": 32, "block_rows": 128, "step_tiles": 2, "x_vectors": 8}
        return choices | {"columns_of_word": 1 + _by_integers(spec)}
    if kind["lists"]:
        choices |= {"block_strips": 16, "block_rows": 512, "step_tiles": 4, "x_vectors": 4}
        return choices | {"columns_of_word": 1}
    choices["batch_columns"] = 128 if spec.dtype == torch.float32 else 256
    # Blocks are 16 rows high, or a multiple: then two strips have the same tiles.
    choices["group_strips"] = 2 if kind["skips"] else 3
    return choices


def _avx512_choices(spec: KernelSpec, target: Target, kind: Mapping[str, int]) -> dict[str, int]:
    is_grouped = bool(getattr(spec.format.codec, "group", None))
    rounds, vnni = spec.activations == "int8", target.isa == "avx512_bf16"
    choices = {
        "decode_streams": 4,
        # CPUs with AMX multiply two floats in less time than a vector of pairs of bfloat16.
        "decode_pairs": int(target.isa != "amx"),
        # Masks would have to be expanded for all of these rows again.
        "repeats_rows": int(rounds and vnni and (is_grouped or not kind["masked"])),
        "uses_amx": int(_fits_tiles(spec, target, kind["skips"])),
    }
    by_pairs = spec.dtype == torch.bfloat16 and target.isa != "avx512"
    if kind["paired"]:
        steps = {"step_tiles": 3, "x_vectors": 2} if by_pairs else {"step_tiles": 2, "x_vectors": 4}
        choices |= {"block_strips": 32, "block_rows": 256, **steps}
        return choices | {"columns_of_word": 1 + by_pairs}
    if kind["lists"]:
        choices |= {"block_strips": 8, "block_rows": 512, "step_tiles": 4 * (1 + by_pairs)}
        return choices | {"x_vectors": 4, "columns_of_word": 1 + by_pairs}
    # Columns that are summed in one chain: in float32 their rounding shows.
    choices["batch_columns"] = 512 if spec.dtype == torch.bfloat16 else 32
    choices["group_strips"] = 1
    if not kind["skips"]:
        # Tiles of x are read from the second-level cache once for all strips of a group. Where
        # nothing but vectors multiplies it is better to expand W once for all of x.
        choices["group_strips"] = 4 if choices["uses_amx"] else 2
        if not choices["uses_amx"]:
            choices["panel_bytes"] = 4 << 20
    return choices


def _fits_tiles(spec: KernelSpec, target: Target, skips: int = 0) -> bool:
    """Whether tile registers multiply what `strips_values.h` makes: pairs, or integers."""
    is_grouped = getattr(spec.format.codec, "group", None) is not None
    integers = spec.activations == "int8" and not is_grouped and not skips
    return target.isa == "amx" and (integers or spec.dtype == torch.bfloat16)


def _alternatives(chosen: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Other values of a schedule's choices that a full search tries."""
    found: dict[str, tuple[int, ...]] = {
        "decode_streams": tuple({1, 2, 4} - {chosen["decode_streams"]}),
        "panel_bytes": (chosen["panel_bytes"] // 2,),
    }
    if "step_tiles" in chosen:
        return found | {"block_strips": (16, 64), "step_tiles": (2, 4), "x_vectors": (4,)}
    if chosen["strip_rows"] == AVX512_ROWS:
        found["decode_pairs"] = (1 - chosen["decode_pairs"],)
    columns = chosen["batch_columns"]
    halved = max(columns // 2, chosen["tile_columns"])
    return found | {"batch_columns": tuple({halved, columns * 2} - {columns})}


COMPONENTS = (StripsLinear(),)
