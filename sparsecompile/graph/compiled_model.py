"""The model that is compiled, as far as a backend can know it, and the names of its weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Names = Mapping[int, tuple[str, ...]]
"""Names of tensors of a model by their identity: several where they are tied."""


def compiled_model() -> nn.Module | None:
    """The module that `torch.compile` was given whose call is running; None where it is a function.

    Dynamo hands over graphs without saying what they are a part of: several where they break, each
    with names as its own function sees them. What was compiled is a variable of the running call.
    """
    # Importing it at module level would import all of Dynamo.
    from torch._dynamo.eval_frame import OptimizeContext

    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == OptimizeContext.__module__:
            known = frame.f_locals
            if isinstance(known.get("self"), OptimizeContext) and "fn" in known:
                return _module_of(known["fn"], known.get("args", ()))
        frame = frame.f_back
    return None


def _module_of(function: Any, args: Sequence[Any]) -> nn.Module | None:
    """The module that a function is, is a method of, or wraps."""
    while function is not None:
        owner = getattr(function, "__self__", function)
        if isinstance(owner, nn.Module):
            return uncompiled(owner)
        # What is compiled in its class is a function that gets the module.
        first = args[0] if args else None
        scope = getattr(function, "__qualname__", "").rpartition(".")[0]
        if isinstance(first, nn.Module) and scope in (c.__qualname__ for c in type(first).__mro__):
            return first
        function = getattr(function, "__wrapped__", None)
    return None


def uncompiled(model: nn.Module) -> nn.Module:
    """The module that `torch.compile` made another one of, or the module itself."""
    original = getattr(model, "_orig_mod", model)
    return original if isinstance(original, nn.Module) else model


def names_of(model: nn.Module | None) -> Names:
    """Names of all parameters and buffers of a model; none where it is not known."""
    names: dict[int, tuple[str, ...]] = {}
    for name, tensor in _tensors(model).items():
        names[id(tensor)] = (*names.get(id(tensor), ()), name)
    return names


def matrices(model: nn.Module) -> tuple[str, ...]:
    """Names of what may be the weight of a linear; the shapes of lazy ones are not known yet."""
    found = _tensors(model).items()
    return tuple(name for name, t in found if is_lazy(t) or t.dim() == 2)


def _tensors(model: nn.Module | None) -> dict[str, Tensor]:
    if model is None:
        return {}
    parameters = model.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(model.named_buffers(remove_duplicate=False))}
