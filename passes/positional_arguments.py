"""`positional_arguments`: what reads a weight has tensors at their places, not by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import Node, map_arg
from torch.fx.operator_schemas import get_signature_for_torch_op

from sparsecompile import Edit, Pass, Phase


@dataclass(frozen=True)
class PositionalArguments(Pass):
    """`linear(input=x, weight=w) -> linear(x, w)`, so that patterns and weights need no names.

    As far as arguments follow one another; those that are passed without a tensor stay.
    """

    name: ClassVar[str] = "positional_arguments"
    phase: ClassVar[Phase] = Phase.NORMALIZE
    before: ClassVar[tuple[str, ...]] = ("canonicalize",)

    def run(self, edit: Edit) -> None:
        """Change the calls in place."""
        for node in edit.nodes():
            named: list[Node] = []
            map_arg(node.kwargs, named.append)
            if named and any(map(edit.weights.is_weight, node.all_input_nodes)):
                _place_arguments(node)


def _place_arguments(node: Node) -> None:
    for names in _signatures(node.target):
        kwargs, args = dict(node.kwargs), list(node.args)
        if not set(kwargs) <= set(names):
            continue
        for name in names[len(args) :]:
            if name not in kwargs:
                break
            args.append(kwargs.pop(name))
        node.args, node.kwargs = tuple(args), kwargs
        return


def _signatures(target: Any) -> Iterator[tuple[str, ...]]:
    """Names of the arguments of a function, or of the method of that name, in order."""
    function = getattr(torch, target, None) if isinstance(target, str) else target
    if function is None:
        return
    signatures = get_signature_for_torch_op(function)
    if not signatures and inspect.isfunction(function):
        signatures = [inspect.signature(function)]
    for signature in signatures or ():
        parameters = signature.parameters.values()
        yield tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


COMPONENTS = (PositionalArguments(),)
