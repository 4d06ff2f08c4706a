"""What timings depend on: where one of it changes, they are measured again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from packing import sparse_
from torch import nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.codegen.cpp import workbench
from sparsecompile.codegen.cpp.compiler import find_compiler
from sparsecompile.codegen.cpp.strips import StripsLinear
from sparsecompile.codegen.tuning import codegen, measurements
from sparsecompile.kernels.template import Source

Change = Callable[[pytest.MonkeyPatch], None]


def another_cpu(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(measurements, "host_cpu", lambda: "another CPU")


def other_files_of_ours(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(measurements, "sources_digest", lambda: "other files")


def more_threads(patch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads() + 1
    patch.setattr(torch, "get_num_threads", lambda: threads)


def another_torch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "__version__", "2.99.0")


def another_compiler(patch: pytest.MonkeyPatch) -> None:
    found = replace(find_compiler(), version="a compiler 1.0")
    patch.setattr(workbench, "find_compiler", lambda: found)


def words_in_cxx(patch: pytest.MonkeyPatch) -> None:
    found = find_compiler()
    found = replace(found, command=(*found.command, "-O0"))
    patch.setattr(workbench, "find_compiler", lambda: found)


def other_flags(patch: pytest.MonkeyPatch) -> None:
    found = replace(find_compiler(), host=("-march=x86-64",))
    patch.setattr(workbench, "find_compiler", lambda: found)


def what_a_plug_in_generates(patch: pytest.MonkeyPatch) -> None:
    render = StripsLinear.render

    def changed(*args: Any) -> Source:
        source = render(*args)
        return replace(source, text=f"{source.text}// ten times slower\n")

    patch.setattr(StripsLinear, "render", changed)
    # What was rendered is kept: templates give the same text for the same arguments.
    patch.setattr(codegen, "_variant", codegen._variant.__wrapped__)


@pytest.mark.parametrize(
    "change",
    [
        another_cpu,
        other_files_of_ours,
        more_threads,
        another_torch,
        another_compiler,
        words_in_cxx,
        other_flags,
        what_a_plug_in_generates,
    ],
)
def test_timings_are_of_one_machine_and_one_source(
    change: Change, tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sparse_(nn.Linear(64, 32)).requires_grad_(False)
    # Then nothing has to be built for it.
    tuned.dense_wins()

    def measured() -> list[int]:
        tuned.measured.clear()
        sc.explain(model, torch.randn(4, 64), tune="fast")
        return sorted(tuned.rows)

    assert measured() == [4]
    assert measured() == []
    change(monkeypatch)
    assert measured() == [4]
    assert measured() == []
