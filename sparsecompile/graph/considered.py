"""Considered, Rewrite: what is kept for the report of what passes looked at, and did."""

from __future__ import annotations

import re
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


@dataclass(frozen=True)
class PartOf:
    """Which part of a weight of the model, or product of several, the weight of a node is.

    Attributes:
        expression: what the weight is, such as `outlier_columns: sum(n_m[2:4]/float, csr/float)`.
        index: the part's place among the leaves; None of a product.
        dense_bytes: bytes of the model's weight, or weights, dense.
        lossy: what changed the weight on request, else empty.
        error: the distance of what all parts make to the weight, as a share of its norm, where they
            were made to be near it only.
    """

    expression: str
    index: int | None
    dense_bytes: int
    lossy: str = ""
    error: float | None = None


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
        part: which part of the weight it reads, where not all of it.
        is_split: whether there are nodes for the parts of its weight in its place.
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
    part: PartOf | None = None
    is_split: bool = False


def module_name(node: Node) -> str:
    """The module of the model that a node is in, such as `layers.0.self_attn`; else its name."""
    stack = node.meta.get("nn_module_stack") or {"": (node.name, None)}
    name, _ = list(stack.values())[-1]
    return re.sub(r"^L\[[^]]*\](\[\d+\])?\.?", "", name) or node.name
