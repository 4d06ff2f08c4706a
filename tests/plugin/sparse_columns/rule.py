"""`double_relu`: an activation that is there twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from sparsecompile import Call, Edit, Match, Phase, Rule


@dataclass(frozen=True)
class DropDoubleRelu(Rule[None]):
    """`relu(relu(x)) -> relu(x)`."""

    name: ClassVar[str] = "double_relu"
    phase: ClassVar[Phase] = Phase.FINISH
    before: ClassVar[tuple[str, ...]] = ("fuse_epilogue",)

    def patterns(self) -> Sequence[Call]:
        """Two in a row."""
        relu = (F.relu, torch.relu)
        inner = Call(relu, ("x", "inner_inplace"), capture="inner")
        return (Call(relu, ("input", "inplace"), {"input": inner}),)

    def guard(self, match: Match, edit: Edit) -> None:
        """Always."""

    def replace(self, match: Match, facts: None, edit: Edit) -> None:
        """Keep the inner one."""
        edit.replace(match.node, match["inner"])


COMPONENTS = (DropDoubleRelu(),)
