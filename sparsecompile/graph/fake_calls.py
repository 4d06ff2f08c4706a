"""Calls run on fake tensors: what they return, and what they do to a tensor that they read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sparsecompile.weights.expression import is_fake


class Use(Enum):
    """What a call does with a tensor."""

    READS = auto()
    ALIASES = auto()
    """It reads it, and what it returns lies in the same memory."""
    MAY_WRITE = auto()


class _WritesAnInput(Exception):  # noqa: N818 - an answer, not an error
    """Raised before the operation runs, so that the fake tensors stay as they are."""


_CANNOT_RUN = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)
"""What calls raise that cannot be run on fake tensors."""


class _Watch(TorchDispatchMode):
    """Stops at the first operation whose schema says that it writes into one of some tensors."""

    def __init__(self, inputs: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inputs = inputs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for place, argument in enumerate(func._schema.arguments):
            # Batch norms keep quiet about the statistics that they update.
            alias = argument.alias_info
            writes = argument.name.startswith("running_") or (alias and alias.is_write)
            value = args[place] if place < len(args) else (kwargs or {}).get(argument.name)
            if writes and storages_of(value) & self._inputs:
                raise _WritesAnInput
        return func(*args, **(kwargs or {}))


def example(node: Node) -> Any:
    """Dynamo keeps a node's fake value under one name, exported programs under another."""
    return node.meta.get("example_value", node.meta.get("val"))


def fake_call(node: Node) -> Any:
    """Value of a call on the fake values of its arguments, None where one is not known."""
    if any(example(source) is None for source in node.all_input_nodes):
        return None
    args, kwargs = map_arg((node.args, node.kwargs), example)
    # Tensors made on the way are fake, too.
    with _mode_of(map(example, node.all_input_nodes)):
        return _call(node, args, kwargs)


def use_of(node: Node, tensor: Node) -> Use:
    """What a call does with one of the tensors that it is handed.

    Its operations are watched as it runs on fake tensors, whatever it is: an operator, a function
    of Python, a method. What cannot be run so may do anything.

    Args:
        node: the call.
        tensor: the node of the tensor.
    """
    values = {source: _faked(example(source)) for source in node.all_input_nodes}
    if node.op not in ("call_function", "call_method") or values.get(tensor) is None:
        return Use.MAY_WRITE
    args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
    try:
        with _mode_of(values.values()), _Watch(storages_of(list(values.values()))):
            result = _call(node, args, kwargs)
    except (_WritesAnInput, *_CANNOT_RUN):
        return Use.MAY_WRITE
    return Use.ALIASES if storages_of(result) & storages_of(values[tensor]) else Use.READS


def _call(node: Node, args: Sequence[Any], kwargs: Any) -> Any:
    function = getattr(type(args[0]), node.target) if isinstance(node.target, str) else node.target
    with torch.no_grad():
        return function(*args, **kwargs)


def _faked(value: Any) -> Any:
    """A tensor without memory in the place of one that has some."""
    has_memory = isinstance(value, Tensor) and not is_fake(value)
    return torch.empty_like(value, device="meta") if has_memory else value


def storages_of(value: Any) -> set[int]:
    """The memories that the tensors of a value lie in."""
    tensors = (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))
    return {tensor.untyped_storage()._cdata for tensor in tensors}


@contextmanager
def _mode_of(values: Iterable[Any]) -> Iterator[None]:
    """The mode that some values are fake in, so that tensors made on the way are fake, too.

    Sizes that depend on data become no symbols that anybody waits for.
    """
    modes = (getattr(leaf, "fake_mode", None) for leaf in tree_leaves(list(values)))
    mode = next(filter(None, modes), None)
    environment = getattr(mode, "shape_env", None)
    with ExitStack() as stack:
        if mode is not None:
            stack.enter_context(mode)
        if environment is not None:
            stack.enter_context(environment.ignore_fresh_unbacked_symbols())
        yield
