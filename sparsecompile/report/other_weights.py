"""Weights with zeros that no linear reads: which they are, and why nothing packs them."""

from __future__ import annotations

from collections.abc import Iterator, Set

import torch
from torch import Tensor, nn
from torch.fx import Node

from sparsecompile.errors import Reject
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.weight_view import called
from sparsecompile.report.facts import NodeReport
from sparsecompile.weights.expression import evaluate

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_RECURRENT = (nn.RNN, nn.GRU, nn.LSTM)
_FAST_PATHS = (torch._transformer_encoder_layer_fwd, torch._native_multi_head_attention)


def read_by_others(graph: int, edit: Edit, known: Set[str]) -> Iterator[NodeReport]:
    """Weights of a graph that something else than a linear reads.

    Those with zeros, and those of linears in one piece with others.

    Args:
        graph: its number.
        edit: what passes did to it.
        known: names of the parameters of its linears.
    """
    for node, parameter in edit.weights.parameters():
        if edit.weights.name(node) in known:
            continue
        for weight, reader in _readers(edit, node):
            value = parameter if weight is node else _value(edit, weight)
            fused = reader.target in _FAST_PATHS
            if value is None or not ((fused and value.dim() == 2) or zeros_of(value)):
                continue
            reason = f"read by {called(reader)}: there is no kernel for it"
            if fused:
                reason += "; torch.backends.mha.set_fastpath_enabled(False) makes it linears"
            name = edit.weights.names(weight)
            yield _left(graph, reader.name, name, value, reason, called(reader))
            break


def outside_of_graphs(
    model: nn.Module, read: Set[int], *, finished: bool = True
) -> Iterator[NodeReport]:
    """Weights with zeros that no graph of a model reads.

    Args:
        model: the model.
        read: identities of the tensors that graphs read.
        finished: whether there will be no more graphs. Before that only recurrent modules are
            known to be in none: Dynamo traces them on request alone.
    """
    left = set(read)
    for path, module in model.named_modules():
        recurrent = isinstance(module, _RECURRENT) and not torch._dynamo.config.allow_rnn
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in left or not (finished or recurrent) or not zeros_of(parameter):
                continue
            left.add(id(parameter))
            kind = _kind(module)
            reason = (
                f"read by {kind}: Dynamo does not trace it, there is no kernel for it"
                if recurrent
                else f"read by no graph: Dynamo runs its {kind} outside of them, or the inputs "
                "do not lead to it"
            )
            weight = f"{path}.{name}" if path else name
            yield _left(None, "", weight, parameter, reason, kind)


def zeros_of(weight: Tensor) -> float:
    """Share of zeros of a weight if it is so large that one bit a value would pay, else 0."""
    if type(weight) not in (Tensor, nn.Parameter) or weight.dtype not in _DTYPES:
        return 0.0
    if weight.dim() < 2 or not weight.numel() or weight.is_meta or weight.layout != torch.strided:
        return 0.0
    share = _share(weight)
    return share if share > 1 / (8 * weight.itemsize) else 0.0


def _share(weight: Tensor) -> float:
    return 1 - int(weight.detach().count_nonzero()) / weight.numel() if weight.numel() else 0.0


def _readers(edit: Edit, weight: Node) -> Iterator[tuple[Node, Node]]:
    """Calls that read a weight or what is computed of it alone, each with what it reads."""
    for user in weight.users:
        if edit.weights.is_weight(user):
            yield from _readers(edit, user)
        elif user.op != "output":
            yield weight, user


def _value(edit: Edit, weight: Node) -> Tensor | None:
    try:
        binding = edit.binding(weight)
        return evaluate(binding, edit.weights.live(binding))
    except Reject:
        return None


def _kind(module: nn.Module) -> str:
    """`nn.LSTM`, or the bare name of a class that is not torch's."""
    kind = type(module)
    return "nn." * kind.__module__.startswith("torch.nn.") + kind.__name__


def _left(
    graph: int | None, node: str, weight: str, value: Tensor, reason: str, reader: str
) -> NodeReport:
    nbytes = value.numel() * value.element_size()
    return NodeReport(
        graph,
        node,
        weight,
        shape=tuple(value.shape),
        dtype=str(value.dtype).removeprefix("torch."),
        zeros=_share(value),
        dense_bytes=nbytes,
        packed_bytes=nbytes,
        reason=reason,
        reader=reader,
    )
