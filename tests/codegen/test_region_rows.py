"""Rows of regions in C++ against what row expressions mean, and the barrier between stages."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsecompile.codegen.cpp.built import load_source
from sparsecompile.codegen.cpp.compiler import find_compiler
from sparsecompile.codegen.cpp.region import render_region
from sparsecompile.codegen.cpp.text import read
from sparsecompile.errors import Reject
from sparsecompile.kernels.codegen import Codegen
from sparsecompile.kernels.region import Input, Region, Stage
from sparsecompile.kernels.rows import (
    FUNCTIONS,
    REDUCTIONS,
    Apply,
    Columns,
    Constant,
    Expression,
    Reduce,
    evaluate,
    is_number,
    shifted,
)
from sparsecompile.kernels.target import Target
from sparsecompile.registry import default_registry

WIDTH, ROWS = 48, 3
PLAIN = ("neg", "square", "sigmoid", "tanh", "relu", "silu", "gelu", "gelu_tanh")


class NativeRegion(ctypes.Structure):
    """`SCRegion`."""

    _fields_: ClassVar[Sequence[tuple[str, Any]]] = (
        ("stages", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("sources", ctypes.c_void_p),
        ("steps", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("workspace_step", "m", "threads")),
    )


def expressions() -> st.SearchStrategy[Expression]:
    """Of two sources, the second twice as wide, and a vector; no overflow, no division by zero."""
    leaves: st.SearchStrategy[Expression] = st.sampled_from(
        (Columns(0), Columns(1), Columns(1, WIDTH), Columns(2, is_vector=True), Constant(0.5))
    )

    def more(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        bounded = inner.map(lambda x: Apply("tanh", (x,)))
        positive = inner.map(lambda x: Apply("add", (Apply("square", (x,)), Constant(1.0))))
        number = positive.map(lambda x: Reduce("sum", x, WIDTH))
        pairs = st.tuples(inner, inner)
        return st.one_of(
            st.builds(lambda name, x: Apply(name, (x,)), st.sampled_from(PLAIN), inner),
            st.builds(Apply, st.sampled_from(("add", "sub", "mul")), pairs),
            st.builds(lambda x, y: Apply("div", (x, y)), inner, positive),
            bounded.map(lambda x: Apply("exp", (x,))),
            st.builds(
                lambda name, x: Apply(name, (x,)), st.sampled_from(("rsqrt", "sqrt")), number
            ),
            inner.map(lambda x: Reduce("amax", x, WIDTH)),
        )

    return st.recursive(leaves, more, max_leaves=6)


def region_of(rows: Sequence[Expression], dtype: torch.dtype = torch.float32) -> Region:
    """One whose only stage computes rows."""
    inputs = (Input(dtype, WIDTH), Input(dtype, 2 * WIDTH), Input(torch.float32, WIDTH, True))
    stage = Stage(
        rows=tuple(enumerate(rows, len(inputs))),
        call=0,
        n=WIDTH,
        x=0,
        weight=0,
        bias=None,
        operands=(),
        dense=(),
        y=len(inputs) + len(rows),
    )
    return Region(dtype, inputs, (WIDTH,) * (len(rows) + 1), (stage,), (stage.y,), 0)


def run(region: Region, inputs: Sequence[Tensor], target: Target) -> list[Tensor]:
    """The rows that C++ computes."""
    source = render_region(region, target)
    library = load_source(source, target, ("sc_region_rows",)).library
    results = [torch.empty(ROWS, WIDTH, dtype=region.dtype) for _ in region.stages[0].rows]
    places = [tensor.data_ptr() for tensor in (*inputs, *results)]
    sources = (ctypes.c_void_p * len(places))(*places)
    steps = (ctypes.c_int64 * len(places))()
    at = [ctypes.cast(each, ctypes.c_void_p) for each in (sources, steps)]
    call = NativeRegion(None, 1, *at, None, 0, ROWS, 1)
    library.sc_region_rows(ctypes.byref(call), ctypes.c_int64(0))
    return results


@settings(max_examples=3)
@given(rows=st.lists(expressions(), min_size=10, max_size=10), seed=st.integers(0, 99))
def test_rows_are_what_expressions_mean(rows: list[Expression], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((ROWS, WIDTH), (ROWS, 2 * WIDTH), (WIDTH,))
    inputs = [torch.randn(*shape, generator=generator) for shape in shapes]
    wide = [each.double() for each in inputs]
    for expression, ours in zip(rows, run(region_of(rows), inputs, Target.host()), strict=True):
        exact = evaluate(expression, wide, WIDTH).expand(ROWS, WIDTH)
        torchs = evaluate(expression, inputs, WIDTH).expand(ROWS, WIDTH).double()
        # Functions are off by some units in the last place, and each one sees the errors before it.
        allowed = 2 * (torchs - exact).abs().max() + 64 * 2**-24 * (1 + exact.abs().max())
        assert (ours.double() - exact).abs().max() <= allowed


def test_every_function_is_drawn_and_written() -> None:
    assert set(FUNCTIONS) == {*PLAIN, "add", "sub", "mul", "div", "exp", "rsqrt", "sqrt"}
    assert set(REDUCTIONS) == {"sum", "amax"}
    number = Reduce("sum", Columns(0), WIDTH)
    rows = [Apply(name, (number,) * (2 if name in ("add", "sub", "mul", "div") else 1))
            for name in FUNCTIONS]  # fmt: skip
    assert all(map(is_number, rows))
    render_region(region_of(rows), Target.host())
    with pytest.raises(Reject, match="C\\+\\+ does not write 'sin' of rows"):
        render_region(region_of([Apply("sin", (Columns(0),))]), Target.host())


def test_a_nan_is_the_largest_wherever_it_stands() -> None:
    inputs = [torch.randn(ROWS, WIDTH), torch.randn(ROWS, 2 * WIDTH), torch.randn(WIDTH)]
    for row, column in enumerate((0, 17, 47)):
        inputs[0][row, column] = float("nan")
    (found,) = run(region_of([Reduce("amax", Columns(0), WIDTH)]), inputs, Target.host())
    assert found.isnan().all()


def test_vectors_may_have_another_dtype() -> None:
    inputs = [torch.randn(ROWS, WIDTH), torch.randn(ROWS, 2 * WIDTH), torch.randn(WIDTH)]
    halves = [each.bfloat16() for each in inputs[:2]]
    expression = shifted(Apply("mul", (Columns(1), Constant(2.0))), WIDTH)
    expression = Apply("mul", (expression, Columns(2, is_vector=True)))
    (found,) = run(region_of([expression], torch.bfloat16), [*halves, inputs[2]], Target.host())
    expected = halves[1][:, WIDTH:].float() * 2 * inputs[2]
    assert torch.equal(found, expected.bfloat16())


def test_other_devices_have_none() -> None:
    registry = default_registry()
    other = next(each for each in registry.all(Codegen) if each.device != "cpu")
    with pytest.raises(Reject, match="kernels for cuda are no stages of regions"):
        other.region(region_of([]), Target.host())


BARRIER = """
#include <thread>
#include <vector>
int main() {
  constexpr int64_t threads = 4;
  Barrier barrier;
  int64_t rounds[threads] = {};  // written without a lock: a race unless the barrier orders them
  bool wrong[threads] = {};
  std::vector<std::thread> team;
  for (int64_t i = 0; i < threads; ++i)
    team.emplace_back([&, i] {
      for (int64_t round = 1; round <= 500; ++round) {
        rounds[i] = round;
        barrier.wait(threads);
        for (int64_t other : rounds) wrong[i] |= other != round;
        barrier.wait(threads);
      }
    });
  for (std::thread& each : team) each.join();
  return wrong[0] || wrong[1] || wrong[2] || wrong[3];
}
"""


def test_the_barrier_orders_what_threads_write(tmp_path: Path) -> None:
    text = "\n".join(
        (
            *map(read, ("arguments.h", "prelude.h", "numbers.h")),
            "using Element = float;\nusing Values = Floats<native_floats>;",
            read("region/region.h"),
            BARRIER,
        )
    )
    source, program = tmp_path / "barrier.cpp", tmp_path / "barrier"
    source.write_text(text, encoding="utf-8")
    words = [*find_compiler().command, "-std=c++17", "-O1", "-g1", "-fsanitize=thread", "-pthread"]
    built = subprocess.run(
        [*words, str(source), "-o", str(program)], capture_output=True, text=True
    )
    if built.returncode:
        pytest.skip(f"there is no ThreadSanitizer here: {built.stderr[:200]}")
    # Some kernels have more random bits in addresses than it can cope with.
    for start in ((), ("setarch", "-R")):
        ran = subprocess.run([*start, str(program)], capture_output=True, text=True)
        if "unexpected memory mapping" not in ran.stderr:
            break
    assert ran.returncode == 0, ran.stderr
