"""Passes are ordered by their names, and what goes wrong in one is said with its name."""

from __future__ import annotations

import operator

import pytest
import torch
from packing import sparse_
from torch import nn

from sparsecompile import (
    NM,
    Bitmap,
    Compiler,
    Edit,
    OrderingError,
    Pass,
    PassError,
    Phase,
    RegistrationError,
    Registry,
    Reject,
    default_registry,
)
from sparsecompile.testing import captured, check_passes


class Named(Pass):
    phase = Phase.FINISH

    def __init__(
        self, name: str, before: tuple[str, ...] = (), after: tuple[str, ...] = ()
    ) -> None:
        self.name, self.before, self.after = name, before, after  # type: ignore[misc]

    def run(self, edit: Edit) -> None:
        raise ZeroDivisionError("a bug")


def test_order_follows_before_and_after() -> None:
    compiler = Compiler(default_registry().copy())
    compiler.register(Named("last", after=("first",)), Named("first", before=("fuse_epilogue",)))
    names = [p.name for p in compiler.passes]
    assert names.index("first") < names.index("fuse_epilogue")
    assert names.index("first") < names.index("last")


def test_a_cycle_names_its_passes() -> None:
    compiler = Compiler(default_registry().copy())
    with pytest.raises(OrderingError) as error:
        compiler.register(Named("b", after=("a",)), Named("a", after=("b",)))
    assert set(error.value.names) == {"a", "b"}
    assert "a" not in [p.name for p in compiler.passes]


def test_a_pass_that_raises_is_named_with_its_node() -> None:
    with pytest.raises(PassError, match="pass 'broken' failed") as error, torch.no_grad():
        check_passes([Named("broken")], *captured(sparse_(nn.Linear(16, 16)), torch.randn(2, 16)))
    assert "ZeroDivisionError: a bug" in str(error.value)
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_a_pass_that_breaks_the_graph_is_named() -> None:
    class Breaks(Named):
        def run(self, edit: Edit) -> None:
            output = next(iter(reversed(edit.module.graph.nodes)))
            with edit.module.graph.inserting_after(output):
                late = edit.module.graph.call_function(operator.add, (1, 2))
            output.args = (late,)

    with pytest.raises(PassError, match="pass 'breaks' failed"), torch.no_grad():
        check_passes([Breaks("breaks")], *captured(sparse_(nn.Linear(16, 16)), torch.randn(2, 16)))


def test_a_refusal_of_a_whole_pass_is_recorded() -> None:
    class Refuses(Named):
        def run(self, edit: Edit) -> None:
            raise Reject("not today")

    with torch.no_grad():
        edit = check_passes(
            [Refuses("refuses")], *captured(sparse_(nn.Linear(16, 16)), torch.randn(2, 16))
        )
    assert [rewrite.reason for rewrite in edit.rewrites] == ["not today"]


def test_names_are_taken_once() -> None:
    registry = default_registry().copy()
    with pytest.raises(RegistrationError, match=r"Structure 'bitmap' .* already registered by"):
        registry.register(NM(5, 9), Bitmap())
    with pytest.raises(RegistrationError, match="did you mean 'n_m\\[2:4\\]'"):
        registry.structure("n_m[2:4")
    assert NM(5, 9) not in registry.all(type(NM(5, 9)))
    with pytest.raises(RegistrationError, match="register instances, not classes"):
        Registry(NM)  # type: ignore[arg-type]
