"""`fuse_epilogue`: elementwise steps behind a packed linear become part of its kernel."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from sparsecompile import (
    MAX_OPERANDS,
    PACKED,
    Call,
    Edit,
    Match,
    Phase,
    Reject,
    Rule,
    format_of,
    insert_packed_linear,
    origins,
)


@dataclass(frozen=True)
class FuseEpilogue(Rule[str]):
    """`step(packed(x, w, b)) -> packed(x, w, b, epilogue=(..., step))`.

    Steps are relu, gelu in both forms, silu, sigmoid, tanh, the addition of a residual and the
    multiplication by a gate, as long as nobody else reads the linear's result. A chain of steps is
    taken in one by one.
    """

    name: ClassVar[str] = "fuse_epilogue"
    phase: ClassVar[Phase] = Phase.FINISH

    def patterns(self) -> Sequence[Call]:
        """Every spelling of every step, behind a packed linear."""
        inner = {"input": PACKED}
        return (
            Call((F.relu, torch.relu, "relu"), ("input", "inplace"), inner, tag="relu"),
            Call((F.gelu,), ("input", "approximate"), inner, tag="gelu"),
            Call((F.silu,), ("input", "inplace"), inner, tag="silu"),
            Call((torch.sigmoid, F.sigmoid, "sigmoid"), ("input",), inner, tag="sigmoid"),
            Call((torch.tanh, F.tanh, "tanh"), ("input",), inner, tag="tanh"),
            Call(
                (operator.add, torch.add, "add"),
                ("input", "other"),
                inner,
                commutative=True,
                tag="add",
            ),
            Call((operator.iadd, "add_"), ("input", "other"), inner, tag="add"),
            Call(
                (operator.mul, torch.mul, "mul"),
                ("input", "other"),
                inner,
                commutative=True,
                tag="mul",
            ),
        )

    def guard(self, match: Match, edit: Edit) -> str:
        """The name of the step."""
        step = match.pattern.tag
        linear = match["linear"]
        if edit.weights.grad:
            raise Reject("gradients are enabled: autograd has to see every step")
        if scope := edit.weights.scope(match.node):
            raise Reject(scope)
        if len(linear.users) > 1:
            raise Reject(f"the linear's result is used {len(linear.users)} times")
        writer = edit.writes_between(linear, match.node)
        if writer is not None:
            raise Reject(f"{writer.name} writes in place in between")
        if not edit.is_contiguous(match.node):
            raise Reject("the result does not lie row by row, as that of the kernel would")
        if step == "gelu":
            forms = {None: "gelu", "none": "gelu", "tanh": "gelu_tanh"}
            step = forms[match["approximate"]]
        if step in ("add", "mul"):
            self._check_operand(match, edit)
        return step

    def _check_operand(self, match: Match, edit: Edit) -> None:
        if len(match["operands"]) == MAX_OPERANDS:
            raise Reject(f"the epilogue reads {MAX_OPERANDS} tensors already")
        if match["other"] is match["linear"]:
            raise Reject("both operands are the linear's result")
        if not edit.same_shape(match["linear"], match["other"]):
            raise Reject("the other operand has another shape or dtype")

    def replace(self, match: Match, facts: str, edit: Edit) -> None:
        """Insert the longer packed linear where the step was."""
        node, linear = match.node, match["linear"]
        operands = match["operands"] + ((match["other"],) if facts in ("add", "mul") else ())
        new = insert_packed_linear(
            edit,
            match["x"],
            match["weight"],
            match["bias"],
            format_of(match["format"]),
            before=node,
            operands=operands,
            epilogue=(*match["epilogue"], facts),
            activations=match["activations"],
            origins=origins(linear),
        )
        edit.replace(node, new)
        edit.erase(linear)


COMPONENTS = (FuseEpilogue(),)
