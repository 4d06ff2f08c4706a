"""Binding: which live Parameters a packed weight came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecompile.errors import Reject


@dataclass(frozen=True)
class Leaf:
    """A live Parameter or buffer of the model.

    Attributes:
        index: its place among Dynamo's arguments.
        name: its fully qualified name in the model, such as `layers.0.mlp.up_proj.weight`.
    """

    index: int
    name: str

    def evaluate(self, arguments: Mapping[int, Tensor]) -> Tensor:
        """The live tensor, on the CPU.

        Raises:
            Reject: it is fake and nothing is known of its values.
        """
        tensor = arguments[self.index]
        if not is_fake(tensor):
            return tensor.detach().cpu()
        # As under torch's `propagate_real_tensors`.
        values = getattr(tensor, "real_tensor", None)
        if values is None:
            raise Reject(f"{self.name} is a fake tensor without values")
        return values.detach().cpu()  # type: ignore[no-any-return]

    def leaves(self) -> tuple[Leaf, ...]:
        """Itself."""
        return (self,)

    def __str__(self) -> str:
        """The name."""
        return self.name


@dataclass(frozen=True)
class Apply:
    """A pure function of weights, such as a transposition, a mask, a concatenation, a pruning."""

    function: Callable[..., Tensor]
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()

    def evaluate(self, arguments: Mapping[int, Tensor]) -> Tensor:
        """Its value for the live tensors, by Dynamo's argument index."""
        return self.function(*_values(self.args, arguments), **dict(self.kwargs))

    def leaves(self) -> tuple[Leaf, ...]:
        """Every live tensor it reads, once each, in order."""
        found: dict[Leaf, None] = {}

        def walk(arg: Any) -> None:
            if isinstance(arg, tuple):
                for item in arg:
                    walk(item)
            elif isinstance(arg, (Leaf, Apply)):
                found.update(dict.fromkeys(arg.leaves()))

        walk(self.args)
        return tuple(found)

    def __str__(self) -> str:
        """`t(layers.0.weight)`."""
        name = getattr(self.function, "__name__", str(self.function))
        flat = ", ".join(
            "(" + ", ".join(map(str, arg)) + ")" if isinstance(arg, tuple) else str(arg)
            for arg in self.args
        )
        return f"{name}({flat})"


def _values(args: tuple[Any, ...], arguments: Mapping[int, Tensor]) -> tuple[Any, ...]:
    # No closure that calls itself: such a cycle would keep the tensors until it is collected.
    return tuple(
        _values(arg, arguments)
        if isinstance(arg, tuple)
        else arg.evaluate(arguments)
        if isinstance(arg, (Leaf, Apply))
        else arg
        for arg in args
    )


def lossy(binding: Binding) -> str:
    """What changes the weight on request, such as `prune 2:4`; empty if nothing does."""
    if isinstance(binding, Leaf):
        return ""
    inner = ", ".join(lossy(x) for x in binding.args if isinstance(x, (Leaf, Apply)) and lossy(x))
    what = getattr(binding.function, "sparsecompile_lossy", "")
    if not what:
        return inner
    options = [str(x) for x in binding.args if not isinstance(x, (Leaf, Apply))]
    return f"{inner}, " * bool(inner) + " ".join((what, *options))


Binding = Leaf | Apply
"""A weight as an expression of live tensors, evaluated when it is packed."""


def live(binding: Binding, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
    """The live tensors of a binding among Dynamo's arguments, in the order of its leaves."""
    return tuple(arguments[leaf.index] for leaf in binding.leaves())


def evaluate(binding: Binding, tensors: Iterable[Tensor]) -> Tensor:
    """Value of a binding for the live tensors of its leaves, in order."""
    leaves = binding.leaves()
    return binding.evaluate({x.index: t for x, t in zip(leaves, tensors, strict=True)})


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor only says what shape, dtype and device one would have."""
    if type(tensor) in (Tensor, torch.nn.Parameter):
        return False
    # Imports sympy, which takes longer than all of torch.
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, FakeTensor)


def beside(value: Tensor, tensor: Tensor) -> Tensor:
    """A tensor that was made on the CPU on the device of another; fake where that one is."""
    if is_fake(tensor):
        return tensor.new_empty(value.shape, dtype=value.dtype)
    return value.to(tensor.device)
