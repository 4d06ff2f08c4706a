"""Regions in C++: the rows between linears as loops, and a row of the native library's table."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch

from sparsecompile.codegen.cpp.built import load_source
from sparsecompile.codegen.cpp.epilogues import EXPRESSIONS
from sparsecompile.codegen.cpp.fragment import ELEMENTS
from sparsecompile.codegen.cpp.native import DTYPES, load_native
from sparsecompile.codegen.cpp.text import read
from sparsecompile.errors import Reject
from sparsecompile.kernels.ops import MAX_DENSE
from sparsecompile.kernels.region import Input, Region, Stage
from sparsecompile.kernels.rows import (
    Apply,
    Columns,
    Constant,
    Expression,
    Reduce,
    is_number,
    walk,
)
from sparsecompile.kernels.spec import digest
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source

COLUMNS = 16
"""Widths are multiples of the widest vector's floats."""
_OPERATORS = {
    "add": "({0} + {1})",
    "sub": "({0} - {1})",
    "mul": "({0} * {1})",
    "div": "({0} / {1})",
}
_FUNCTIONS = {
    **_OPERATORS,
    "neg": "(-{0})",
    "square": "squared({0})",
    "exp": "exponential({0})",
    "rsqrt": "(1.0f / std::sqrt({0}))",
    "sqrt": "std::sqrt({0})",
}
_OF_NUMBERS = ("rsqrt", "sqrt")
"""Written for floats, not for vectors of them."""
_LARGEST = torch.finfo(torch.float32).max
_STEPS = ("relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh")
HEAD = """\
// The rows between the {count} linears of a region, {dtype}.
#include <cmath>
"""


def render_region(region: Region, target: Target) -> Source:
    """The source of a region: the same text for all layers that are alike.

    Raises:
        Reject: something that C++ does not write, or a width that is no whole vectors.
    """
    for stage in region.stages:
        for value, expression in stage.rows:
            _check(region.width(value), expression)
    rows = [(i, stage) for i, stage in enumerate(region.stages) if stage.rows]
    cases = "".join(f"    case {i}: return rows_{i}(m, sources);\n" for i, _ in rows)
    text = "\n".join(
        (
            HEAD.format(count=len(region.stages), dtype=region.dtype),
            *map(read, ("arguments.h", "prelude.h", "numbers.h")),
            "namespace {\n\n"
            f"using Element = {ELEMENTS[region.dtype]};  // of rows\n"
            "using Values = Floats<native_floats>;\n\n}  // namespace\n",
            *map(read, ("activations.h", "region/region.h")),
            "namespace {\n",
            *_functions(),
            *(_rows(region, i, stage) for i, stage in rows),
            "SC_INLINE void rows_of(int64_t stage, int64_t m, const Sources& sources) {\n"
            f"  switch (stage) {{\n{cases}  }}\n}}\n\n}}  // namespace\n",
            read("region/run.h"),
        )
    )
    return Source(f"region_{digest(text)}", "cpp", text, (("sc_region", None),))


def _check(width: int, expression: Expression) -> None:
    for columns in (width, *(e.width for e in walk(expression) if isinstance(e, Reduce))):
        if columns % COLUMNS:
            raise Reject(f"{columns} columns are no multiple of {COLUMNS}")
    for each in walk(expression):
        if isinstance(each, Constant) and not abs(each.value) <= _LARGEST:
            raise Reject(f"C++ does not write {each.value} in float32")
        if not isinstance(each, Apply):
            continue
        if each.name not in _FUNCTIONS and each.name not in _STEPS:
            raise Reject(f"C++ does not write {each.name!r} of rows")
        if each.name in _OF_NUMBERS and not is_number(each):
            raise Reject(f"{each.name!r} is written for one number a row, not for all columns")


def _functions() -> Iterator[str]:
    """Steps of epilogues as functions of a float or a vector, and what C++ has no operator for."""
    yield "template <class T>\nSC_INLINE T squared(T value) { return value * value; }\n"
    for name in _STEPS:
        body = EXPRESSIONS[name].format()
        yield (
            f"template <class Values>\nSC_INLINE Values {name}(Values value) {{ return {body}; }}\n"
        )


def _rows(region: Region, number: int, stage: Stage) -> str:
    """Loops over the rows: first what is one number a row, then columns."""
    lines = [
        f"// What linear {number} reads, and what others will.",
        f"inline void rows_{number}(int64_t m, const Sources& sources) {{",
        "  for (int64_t row = 0; row < m; ++row) {",
    ]
    used = dict.fromkeys(e.source for _, x in stage.rows for e in walk(x) if isinstance(e, Columns))
    made = {value for value, _ in stage.rows}
    for source in (*used, *(value for value in made if value not in used)):
        lines.append("    " + _pointer(region, source, const=source not in made))
    numbers: dict[Expression, str] = {}
    for value, expression in stage.rows:
        for each in walk(expression):
            if isinstance(each, Reduce) and each not in numbers:
                of = _write(each.of, numbers)
                numbers[each] = f"r{len(numbers)}"
                lines.append(
                    f"    const float {numbers[each]} = row_{each.name}({each.width}, "
                    f"[&](int64_t c) SC_INLINED {{ return Values{{}} + {of}; }});"
                )
        lines += [
            f"    for (int64_t c = 0; c < {region.width(value)}; c += native_floats)",
            f"      store_floats<native_floats>(s{value} + c, Values{{}} + "
            f"{_write(expression, numbers)});",
        ]
    return "\n".join((*lines, "  }", "}", ""))


def _pointer(region: Region, source: int, *, const: bool) -> str:
    inputs = region.inputs
    kind = "const " if const else ""
    if source < len(inputs) and inputs[source].is_vector:
        dtype = inputs[source].dtype
        assert dtype is not None, "vectors have one"
        element = ELEMENTS[dtype]
        return f"const auto* s{source} = reinterpret_cast<const {element}*>(sources({source}));"
    cast = f"reinterpret_cast<{kind}Element*>(sources({source}))"
    return f"{kind}Element* s{source} = {cast} + row * {region.width(source)};"


def _write(expression: Expression, numbers: Mapping[Expression, str]) -> str:
    """A C++ expression for the columns from `c` on."""
    if isinstance(expression, Columns):
        first = f" + {expression.first}" if expression.first else ""
        return f"columns_at(s{expression.source}, c{first})"
    if isinstance(expression, Constant):
        return f"{float(expression.value)!r}f"
    if isinstance(expression, Reduce):
        return numbers[expression]
    args = [_write(each, numbers) for each in expression.args]
    return _FUNCTIONS.get(expression.name, f"{expression.name}({{0}})").format(*args)


class _NativeStage(ctypes.Structure):
    """`SCStagePlan` of `text/native/region.cpp`, field by field."""

    _fields_: ClassVar[Sequence[tuple[str, Any]]] = (
        *((name, ctypes.c_int64) for name in ("call", "n", "x", "weight", "bias")),
        ("operands", ctypes.c_int64 * 2),
        ("dense", ctypes.c_int64 * MAX_DENSE),
        ("y", ctypes.c_int64),
        ("has_rows", ctypes.c_int64),
    )


class _NativeSource(ctypes.Structure):
    """`SCSourcePlan` of `text/native/region.cpp`, field by field."""

    _fields_: ClassVar[Sequence[tuple[str, Any]]] = (
        ("dtype", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("kind", ctypes.c_int64),
    )


_OTHER, _ROWS, _VECTOR, _OWN, _SHARED = range(5)
"""Kinds of sources: `SourceKind` of `text/native/region.cpp`."""


def load_region(region: Region, target: Target) -> tuple[int, Source]:
    """Build a region and make it known to the op; what graphs call it, and its source.

    Raises:
        Reject: C++ does not write it.
        BuildError: the compiler is missing or failed.
        CacheError: the cache folder cannot be used.
    """
    source = render_region(region, target)
    built = load_source(source, target, ("sc_region_rows",))
    key = (int(digest(repr(region), source.text, str(target))[:16], 16) >> 1) | 1
    stages = (_NativeStage * len(region.stages))(*map(_native_stage, region.stages))
    places = [*map(_native_input, region.inputs)]
    made = {value for stage in region.stages for value, _ in stage.rows}
    for value in range(len(places), len(places) + len(region.widths)):
        kind = _OWN if value in made else _SHARED
        places.append(_NativeSource(DTYPES[region.dtype], region.width(value), kind))
    sources = (_NativeSource * len(places))(*places)
    outputs = (ctypes.c_int64 * 2)(*region.outputs, *[-1] * (2 - len(region.outputs)))
    load_native().library.sc_register_region(
        ctypes.c_int64(key),
        *(ctypes.c_void_p(built.functions[name]) for name in ("sc_region", "sc_region_rows")),
        *(stages, ctypes.c_int64(len(stages)), sources, ctypes.c_int64(len(sources))),
        *(ctypes.c_int64(len(region.inputs)), ctypes.c_int64(region.like), outputs),
    )
    return key, source


def _native_stage(stage: Stage) -> _NativeStage:
    operands = (*stage.operands, *[-1] * (2 - len(stage.operands)))
    dense = (*stage.dense, *[-1] * (MAX_DENSE - len(stage.dense)))
    bias = -1 if stage.bias is None else stage.bias
    return _NativeStage(
        *(stage.call, stage.n, stage.x, stage.weight, bias),
        *((ctypes.c_int64 * 2)(*operands), (ctypes.c_int64 * MAX_DENSE)(*dense)),
        *(stage.y, bool(stage.rows)),
    )


def _native_input(given: Input) -> _NativeSource:
    if given.dtype is None:
        return _NativeSource(-1, 0, _OTHER)
    return _NativeSource(DTYPES[given.dtype], given.width, _VECTOR if given.is_vector else _ROWS)
