"""TorchTask: a workload in torch, which every peer that is a torch backend runs the same way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from sparsecompile.bench.peers.prepared import LeftOut, Prepared, Sample

Function = Callable[..., Any]
PARTS = {
    "generated": ("cpp_fused",),
    "packed linears": ("sparsecompile::",),
    "attention": ("scaled_dot_product",),
    "dense linears": ("mm", "linear", "mkldnn", "int4pack", "int8pack", "torchao::"),
}
"""Parts of a step -> what the names of their ops contain; the first that fits.

What Inductor generates is named after all that it fuses: rotations, masks, writing to the cache.
"""
GUARDS = {
    "all": None,
    "inputs": "skip_guard_on_all_nn_modules_unsafe",
    "none": "skip_all_guards_unsafe",
}
"""What Dynamo checks at every call -> the filter of `torch.compiler` that leaves no more."""


@dataclass(frozen=True)
class TorchTask:
    """A model and its calls.

    Attributes:
        model: the module whose linears may be changed in place.
        function: what is to be compiled.
        sample: runs one sample with the compiled function.
        items: tokens or sentences of a sample.
        calls: of the function in a sample.
        what: the model's dtype and what else counts, such as `bfloat16, cache of 160`.
        example: inputs of `model`, for those that export it.
    """

    model: nn.Module
    function: Function
    sample: Callable[[Function], Sample | None]
    items: int
    calls: int
    what: str
    example: tuple[Tensor, ...] = ()

    def prepared(self, compiled: Function, what: str = "") -> Prepared:
        """With the function compiled, or as it is.

        Args:
            compiled: the function.
            what: the compiler adds to what is computed with, such as `int8 weights`.
        """
        return Prepared(
            lambda: self._run(compiled),
            self.items,
            ", ".join(filter(None, (self.what, what))),
            lambda: self._parts(compiled),
        )

    def _run(self, compiled: Function) -> Sample | None:
        with torch.no_grad():
            return self.sample(compiled)

    def _parts(self, compiled: Function) -> Mapping[str, float]:
        """Milliseconds of one call; ops have the profiler's cost in them, the whole has not."""
        start = time.perf_counter()
        self._run(compiled)
        whole = (time.perf_counter() - start) * 1e3 / self.calls
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            self._run(compiled)
        parts = dict.fromkeys(PARTS, 0.0)
        for event in seen.key_averages():
            for part, words in PARTS.items():
                if any(word in event.key for word in words):
                    parts[part] += event.self_cpu_time_total / 1e3 / self.calls
                    break
        rest = max(0.0, whole - sum(parts.values()))
        return {**parts, "rest": rest, "whole": whole}


def guard_options(guards: str) -> dict[str, Any]:
    """What `torch.compile` takes as `options`.

    Args:
        guards: one of `GUARDS`.

    Raises:
        LeftOut: it is none.
    """
    if guards not in GUARDS:
        raise LeftOut(f"guards={guards} is none of {', '.join(GUARDS)}")
    name = GUARDS[guards]
    return {} if name is None else {"guard_filter_fn": getattr(torch.compiler, name)}


def dtype_of(name: str) -> torch.dtype:
    """`bfloat16` -> `torch.bfloat16`.

    Raises:
        LeftOut: it is no dtype of torch.
    """
    from sparsecompile.bench.cases import DTYPES

    if name not in DTYPES:
        raise LeftOut(f"{name!r} is none of {', '.join(DTYPES)}")
    return DTYPES[name]
