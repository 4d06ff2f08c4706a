"""What stands between two linears, read from the graph as expressions of rows."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from sparsecompile.errors import Reject
from sparsecompile.kernels.rows import Apply, Constant, Expression, Reduce, is_number, shifted

Read = Callable[[Any], Expression]
"""The expression of an argument: a node or a number."""
ValueOf = Callable[[Any], Tensor]
"""What stands for the value of a node."""

_NAMES: Mapping[Any, str] = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.truediv: "div",
    operator.neg: "neg",
    operator.pow: "pow",
    operator.getitem: "getitem",
    **{
        getattr(torch, name): name
        for name in (
            *("add", "sub", "mul", "div", "neg", "pow", "square", "exp", "rsqrt", "sqrt"),
            *("sigmoid", "tanh", "relu", "mean", "sum", "amax", "reshape", "chunk", "split"),
        )
    },
    **{getattr(F, name): name for name in ("silu", "gelu", "relu", "sigmoid", "tanh")},
    F.layer_norm: "layer_norm",
    torch.layer_norm: "layer_norm",
    **dict.fromkeys((F.rms_norm, torch.rms_norm), "rms_norm"),
    F.dropout: "dropout",
}
_SAME = ("to", "float", "type_as", "contiguous", "view", "reshape")
"""Methods that give the same rows in another dtype or shape: in between all is float32."""
_APPLIED = (
    *("add", "sub", "mul", "div", "neg", "square", "exp", "rsqrt", "sqrt"),
    *("sigmoid", "tanh", "relu", "silu"),
)
_REDUCED = {"mean": "sum", "sum": "sum", "amax": "amax"}


def name_of(node: Node) -> str:
    """What a node is called, however it is written; empty where no expression is made of it."""
    if node.op == "call_method":
        return str(node.target)
    return _NAMES.get(node.target, "") if node.op == "call_function" else ""


def columns_of(value: Tensor) -> int:
    """How many columns a value has.

    Raises:
        Reject: it has no dimension, or one that varies.
    """
    if not value.dim() or not isinstance(value.shape[-1], int):
        raise Reject(f"columns of {tuple(value.shape)} are not known")
    return int(value.shape[-1])


def expression_of(node: Node, read: Read, value_of: ValueOf) -> Expression:
    """What a node computes of rows.

    Args:
        node: one whose value has as many rows as its arguments have.
        read: gives the expressions of arguments.
        value_of: gives the values of nodes.

    Raises:
        Reject: it is none of what rows may be made of.
    """
    name, args, kwargs = name_of(node), node.args, node.kwargs
    width = columns_of(value_of(node))

    def width_of(other: Any) -> int:
        return columns_of(value_of(other))

    if name in _SAME:
        if width_of(args[0]) != width:
            raise Reject(f"{node.name} gives rows another width")
        return read(args[0])
    if name == "dropout" and not (args[2] if len(args) > 2 else kwargs.get("training", True)):
        return read(args[0])
    is_plain = not kwargs or kwargs == {"inplace": False}
    if name in _APPLIED and is_plain and not any(each is True for each in args):
        return _applied(node, width, read, width_of)
    if name == "gelu":
        form = args[1] if len(args) > 1 else kwargs.get("approximate", "none")
        return Apply("gelu_tanh" if form == "tanh" else "gelu", (read(args[0]),))
    if name == "pow" and args[1] == 2:
        return Apply("square", (read(args[0]),))
    if name in _REDUCED:
        return _reduced(node, read, width_of)
    if name in ("layer_norm", "rms_norm"):
        return _normed(node, width, read)
    if name == "getitem":
        return _part(node, width, read, width_of)
    raise Reject(f"{node.name} is no step of rows")


def _applied(node: Node, width: int, read: Read, width_of: Callable[[Any], int]) -> Expression:
    args = [each for each in node.args if each is not False]
    for each in args:
        if isinstance(each, Node) and width_of(each) not in (1, width):
            raise Reject(f"{node.name} repeats columns")
    found = tuple(map(read, args))
    for each, expression in zip(args, found, strict=True):
        # A number a row is one whatever reads it; one column is not.
        if isinstance(each, Node) and width_of(each) == 1 != width and not is_number(expression):
            raise Reject(f"{node.name} repeats a column")
    return Apply(name_of(node), found)


def _mean(of: Expression, width: int) -> Expression:
    return Apply("div", (Reduce("sum", of, width), Constant(float(width))))


def _reduced(node: Node, read: Read, width_of: Callable[[Any], int]) -> Expression:
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    keeps = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    if dims not in (-1, (-1,), [-1]) or not keeps or set(node.kwargs) - {"dim", "keepdim"}:
        raise Reject(f"{node.name} is not over the columns alone, or drops their dimension")
    width, of = width_of(node.args[0]), read(node.args[0])
    name = name_of(node)
    return _mean(of, width) if name == "mean" else Reduce(_REDUCED[name], of, width)


def _normed(node: Node, width: int, read: Read) -> Expression:
    names: tuple[str, ...] = ("input", "normalized_shape", "weight", "bias", "eps")
    if name_of(node) == "rms_norm":
        names = ("input", "normalized_shape", "weight", "eps")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    shape = given["normalized_shape"]
    if tuple(shape) != (width,):
        raise Reject(f"{node.name} is over more than the columns")
    x, eps = read(given["input"]), given.get("eps")
    if "bias" in names:
        x = Apply("sub", (x, _mean(x, width)))
        eps = 1e-5 if eps is None else eps
    if eps is None:
        # Which dtype's it is, torch's versions and kernels do not agree on.
        raise Reject(f"{node.name} leaves eps to the dtype")
    variance = Apply("add", (_mean(Apply("square", (x,)), width), Constant(float(eps))))
    result: Expression = Apply("mul", (x, Apply("rsqrt", (variance,))))
    for key, name in (("weight", "mul"), ("bias", "add")):
        if given.get(key) is not None:
            result = Apply(name, (result, read(given[key])))
    return result


def _part(node: Node, width: int, read: Read, width_of: Callable[[Any], int]) -> Expression:
    """A part of `split` or `chunk` over columns, or a slice that leaves rows as they are."""
    of: Any = node.args[0]
    which: Any = node.args[1]
    if isinstance(which, int) and name_of(of) in ("split", "chunk"):
        dim = of.args[2] if len(of.args) > 2 else of.kwargs.get("dim", 0)
        if dim != -1:
            raise Reject(f"{of.name} is not over columns")
        sizes = of.args[1]
        if isinstance(sizes, int):
            all_columns = width_of(of.args[0])
            step = sizes if name_of(of) == "split" else -(-all_columns // sizes)
            first = which * step
        else:
            first = sum(sizes[:which])
        return shifted(read(of.args[0]), first)
    slices = which if isinstance(which, tuple) else (which,)
    plain = all(s is ... or (isinstance(s, slice) and s.start in (None, 0)) for s in slices)
    if not plain or width_of(of) != width:
        raise Reject(f"{node.name} is no part of rows")
    return read(of)
