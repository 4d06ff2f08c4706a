"""Calls that write in place, by how they are spelt."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from torch.fx import Node

_WRITING_OPERATORS = {"setitem", "delitem"} | {
    f"i{name}"
    for name in (
        *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow"),
        *("lshift", "rshift", "and", "or", "xor", "concat"),
    )
}


def writes_in_place(node: Node) -> bool:
    """Whether a node may change a tensor that existed before it."""
    if node.op == "call_method":
        name = str(node.target)
        return (name.endswith("_") and not name.endswith("__")) or name == "__setitem__"
    if node.op != "call_function":
        return False
    if node.kwargs.get("inplace") or node.kwargs.get("out") is not None:
        return True
    place = _place_of_inplace(node.target)
    if place is not None and len(node.args) > place and node.args[place]:
        return True
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return bool(schema.is_mutable)
    name = getattr(node.target, "__name__", "")
    module = getattr(node.target, "__module__", "") or ""
    if module in ("_operator", "operator"):
        return name in _WRITING_OPERATORS
    return name.endswith("_") and not name.endswith("__")


@cache
def _place_of_inplace(function: Callable[..., Any]) -> int | None:
    """Which positional argument of a function of `torch.nn.functional` is `inplace`, if any."""
    if getattr(function, "__module__", None) != "torch.nn.functional":
        return None
    names = list(inspect.signature(function).parameters)
    return names.index("inplace") if "inplace" in names else None
