"""Considered, Rewrite: what is kept for the report of what passes looked at, and did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from sparsecompile.detection.survey import Survey
from sparsecompile.weights.expression import Binding


@dataclass(frozen=True)
class Rewrite:
    """What a pass did at one node; `reason` says why it did not, and is empty when it did."""

    pass_name: str
    node: str
    reason: str = ""


@dataclass
class Considered:
    """A node whose weight was looked at, such as a linear.

    Attributes:
        linear: its node, which may be gone from the graph but still has its place.
        weight: name of the weight in the model; of the module, where there is no weight.
        value: fake tensor that stands for it, if known.
        survey: what was found, or None when it could not be taken.
        binding: the weight as an expression of live tensors, or None when it could not be taken.
        look: takes the survey anew, of the live tensors of the binding's leaves.
        lossy: what changes the weight on request, else empty.
        reason: why it could not be taken, else empty.
        reader: what it is, where it is no linear.
        has_weight: whether it reads a weight.
    """

    linear: Node
    weight: str
    value: Tensor | None = None
    survey: Survey | None = None
    binding: Binding | None = None
    look: Callable[[tuple[Tensor, ...]], Survey] | None = None
    lossy: str = ""
    reason: str = ""
    reader: str = ""
    has_weight: bool = True
