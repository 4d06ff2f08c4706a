"""smooth: what is large in activations moves to weights, where rounding finds it less hard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sparsecompile.errors import OptionError
from sparsecompile.sparsification.calibration import Calibration
from sparsecompile.sparsification.progress import Progress


@dataclass(frozen=True)
class Smoothed:
    """A norm, and the linears that alone read it.

    Attributes:
        norm: name of the module.
        linears: names of the modules.
        reason: why they were left as they are; empty where they were not.
    """

    norm: str
    linears: tuple[str, ...]
    reason: str = ""


@dataclass(eq=False)
class _Norm:
    """A module with a weight for every column, in one call on the first batch."""

    module: nn.Module
    inputs: tuple[Any, ...] = ()
    output: Tensor | None = None
    linears: dict[str, nn.Linear] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    largest: Tensor | None = None


@torch.no_grad()
def smooth(
    model: nn.Module, calibration: Calibration, alpha: float, bar: Progress
) -> tuple[Smoothed, ...]:
    """SmoothQuant (arXiv 2211.10438): columns of activations are divided, of weights multiplied.

    In place, and what the model computes stays what it is but for roundings: the divisor of column
    j, `max|x_j|^alpha / max|w_j|^(1 - alpha)`, goes into the weight, and bias, of the norm before.

    Args:
        model: the model, in evaluation.
        calibration: of the model.
        alpha: from 0, all stays in activations, to 1, all goes to weights.
        bar: counts what has run.

    Returns:
        Every norm that linears read, with the reason where it was left alone.

    Raises:
        OptionError: the model does not run on a batch, or `alpha` is not from 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise OptionError("smooth", f"option 'smooth' must be from 0 to 1, not {alpha}")
    norms = _norms(model, partial(calibration.run, 0))
    with ExitStack() as hooks:
        for norm in norms.values():
            handle = norm.module.register_forward_hook(partial(_measure, norm))
            hooks.callback(handle.remove)
        bar.expect(len(calibration))
        for i in bar.track(len(calibration)):
            calibration.run(i)
    return tuple(
        Smoothed(name, tuple(norm.linears), _fold(norm, alpha)) for name, norm in norms.items()
    )


def _norms(model: nn.Module, run: Callable[[], object]) -> dict[str, _Norm]:
    """Norms whose output linears read, and what else reads it."""
    norms = {
        name: _Norm(module)
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.dim() == 1
    }
    held = Counter(id(p) for m in model.modules() for p in m._parameters.values())
    linears = {
        id(m.weight): (name, m)
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear) and held[id(m.weight)] == 1
    }
    with ExitStack() as hooks:
        for norm in norms.values():
            handle = norm.module.register_forward_hook(partial(_record, norm))
            hooks.callback(handle.remove)
        hooks.enter_context(_Readers(norms, linears))
        output = run()
    for norm in norms.values():
        if any(leaf is norm.output for leaf in tree_leaves(output) if isinstance(leaf, Tensor)):
            norm.others.add("the model's output")
    return {name: norm for name, norm in norms.items() if norm.linears}


class _Readers(TorchFunctionMode):
    """Looks at every function that gets what a norm gave."""

    def __init__(self, norms: dict[str, _Norm], linears: dict[int, tuple[str, nn.Linear]]) -> None:
        super().__init__()
        self._norms, self._linears = norms, linears

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for norm in self._norms.values():
            if norm.output is not None and any(t is norm.output for t in tensors):
                found = self._linears.get(id(args[1])) if func is F.linear else None
                if found is not None:
                    norm.linears[found[0]] = found[1]
                elif func not in _QUESTIONS:
                    norm.others.add(getattr(func, "__name__", str(func)))
        return func(*args, **(kwargs or {}))


_QUESTIONS = (
    *(Tensor.shape.__get__, Tensor.dtype.__get__, Tensor.device.__get__, Tensor.ndim.__get__),  # type: ignore[attr-defined]
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point),
)


def _record(norm: _Norm, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    if norm.output is not None:
        norm.others.add("a second call")
    elif isinstance(output, Tensor):
        norm.inputs, norm.output = args, output


def _measure(norm: _Norm, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
    found = output.detach().abs().flatten(0, -2).amax(0).float()
    norm.largest = found if norm.largest is None else torch.maximum(norm.largest, found)


def _fold(norm: _Norm, alpha: float) -> str:
    """Divide and multiply; if not, why."""
    if norm.others:
        return f"{', '.join(sorted(norm.others))} reads it, too"
    assert norm.largest is not None
    assert norm.output is not None
    weights = [linear.weight for linear in norm.linears.values()]
    columns = torch.stack([w.abs().amax(0).float() for w in weights]).amax(0)
    scale = (norm.largest**alpha / columns ** (1 - alpha)).clamp(min=1e-5)
    scale = torch.where((norm.largest > 0) & (columns > 0), scale, 1.0)
    own = [p for p in norm.module.parameters(recurse=False) if p.shape == scale.shape]
    before = [p.clone() for p in own]
    for parameter in own:
        parameter.div_(scale)
    now = norm.module(*norm.inputs).float() * scale
    off = (now - norm.output.float()).abs().amax()
    if off > 8 * torch.finfo(norm.output.dtype).eps * norm.largest.amax():
        for parameter, old in zip(own, before, strict=True):
            parameter.copy_(old)
        return f"{type(norm.module).__name__} is not proportional to its weight"
    for weight in weights:
        weight.mul_(scale)
    return ""
