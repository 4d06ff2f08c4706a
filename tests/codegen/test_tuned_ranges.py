"""Which kernel serves which range of m."""

from __future__ import annotations

import torch
from packing import Packing, close
from torch import nn
from tuned import Tuned

from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.measurements import tuning_key
from sparsecompile.kernels.problem import ROWS
from sparsecompile.report.facts import NodeReport


def decode_wins(name: str, rows: int) -> float:
    return 1.0 if name.endswith("decode") else 2.0 if name != "dense" else 9.0


def explain(model: nn.Module, tune: str) -> NodeReport:
    """For any m."""
    backend = Packing(tune=tune)
    with torch.no_grad():
        torch.compile(model, backend=backend, dynamic=True)(torch.randn(3, 64))
    (node,) = backend.compiler.report.nodes
    return node


def test_full_finds_where_the_next_range_begins(model: nn.Linear, tuned: Tuned) -> None:
    def seconds(name: str, rows: int) -> float:
        return {"dense": 3.0, "batch": 2.0 if rows <= 12 else 4.0}.get(name.split("_")[-1], 2.5)

    tuned.seconds = seconds
    backend = Packing(tune="full")
    fast = torch.compile(model, backend=backend, dynamic=True)
    with torch.no_grad():
        for rows in (2, 12, 13, 16, 64):
            x = torch.randn(rows, 64)
            close(fast(x), model(x))
    (node,) = backend.compiler.report.nodes
    assert node.kernel is not None
    assert [part.partition(":")[0] for part in node.kernel.ranges][-2:] == ["m <= 12", "any m"]
    assert node.kernel.ranges[-1] == "any m: dense"
    assert [rows for rows in tuned.rows if rows not in ROWS] == [12, 14, 13]
    assert {t.rows for t in node.trials if t.chosen} == {*ROWS, 12}
    tuned.measured.clear()
    torch._dynamo.reset()
    again = explain(model, "fast")
    assert again.kernel is not None
    assert again.kernel.ranges == node.kernel.ranges
    assert tuned.measured == []


def test_fast_moves_no_end_of_a_range(model: nn.Linear, tuned: Tuned) -> None:
    tuned.dense_wins(lambda rows: rows > 12)
    kernel = explain(model, "fast").kernel
    assert kernel is not None
    assert kernel.ranges[-2].startswith("m <= 8: ")
    assert set(tuned.rows) == {*ROWS, 128}


def test_a_function_is_never_given_more_rows_than_it_serves(model: nn.Linear, tuned: Tuned) -> None:
    tuned.seconds = decode_wins
    kernel = explain(model, "full").kernel
    assert kernel is not None
    assert [part.partition(" of ")[0] for part in kernel.ranges] == [
        "m <= 8: sc_linear_decode",
        "any m: sc_linear_batch",
    ]


def test_not_even_where_the_record_says_that_it_is_faster(model: nn.Linear, tuned: Tuned) -> None:
    tuned.seconds = decode_wins
    explain(model, "full")
    (entry,) = (e for e in tuned.record().entries() if e["facts"]["m"] == 8)
    facts = {**entry["facts"], "m": 12}
    timings = {name: Timing(**timing) for name, timing in entry["timings"].items()}
    tuned.record().add(tuning_key(facts), facts, timings)
    kernel = explain(model, "full").kernel
    assert kernel is not None
    assert kernel.ranges[0].startswith("m <= 8: sc_linear_decode")
