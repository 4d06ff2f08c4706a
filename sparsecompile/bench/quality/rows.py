"""Rows of `bench quality`: a model made by each recipe, compiled, read and timed beside dense."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sparsecompile.bench.environment import Environment
from sparsecompile.bench.quality.recipes import Recipe
from sparsecompile.bench.timing import interleaved
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.compiler import Compiler
from sparsecompile.sparsification.sparsify import sparsify

CONTEXT = 128
"""Tokens before those that are decoded."""
STEPS = 8
"""Tokens that a sample decodes."""


@dataclass(frozen=True)
class QualityRow(Environment):
    """A model made by one recipe; `dense` is compiled by Inductor.

    Attributes:
        model: its name.
        dtype: of its weights.
        recipe: what was done to it.
        perplexity: of every token of a window but the first, given those before it there, by the
            compiled model.
        over_dense: that over the dense model's, less one, in percent.
        mbytes: of all linears' weights, as they are read, in 10^6 bytes.
        packed: linears that were packed, and all of them.
        prefill: tokens a second of a window; 0 where nothing was timed, as below.
        prefill_ratio: over that of the dense model in the same rounds.
        decode: tokens a second after `CONTEXT` of them, with a static cache.
        decode_ratio: over that of the dense model in the same rounds.
    """

    model: str
    dtype: str
    recipe: str
    perplexity: float
    over_dense: float
    mbytes: float
    packed: str
    prefill: float
    prefill_ratio: float
    decode: float
    decode_ratio: float


class Compiled:
    """A causal language model, compiled, without gradients.

    Args:
        model: of Transformers.
        backend: that compiles it.
    """

    def __init__(self, model: Any, backend: Any) -> None:
        self._model = model
        self._forward: Any = torch.compile(model.forward, backend=backend)
        self._cache: Any = None

    def perplexity(self, windows: Sequence[Tensor]) -> float:
        """Of windows `[1, tokens]`."""
        losses = []
        for window in windows:
            logits = self.read(window)[0]
            losses.append(cross_entropy(logits[:-1].float(), window[0, 1:]))
        return math.exp(torch.stack(losses).mean())

    def read(self, ids: Tensor) -> Tensor:
        """Logits of all tokens `[1, tokens, words]`."""
        logits: Tensor = self._forward(input_ids=ids, use_cache=False).logits
        return logits

    def decode(self, ids: Tensor) -> None:
        """`STEPS` tokens after `CONTEXT`, one by one, from where the last call of this ended."""
        import transformers

        size, cache = CONTEXT + STEPS, cast("Any", transformers.StaticCache)
        if self._cache is None:
            self._cache = cache(config=self._model.config, max_cache_len=size)
            self._model(input_ids=ids[:, :CONTEXT], past_key_values=self._cache, use_cache=True)
        lengths = [getattr(layer, "cumulative_length", None) for layer in self._cache.layers]
        for length in lengths:
            if isinstance(length, Tensor):
                length.fill_(CONTEXT)
        for place in range(CONTEXT, size):
            self._forward(
                input_ids=ids[:, place : place + 1],
                past_key_values=self._cache,
                position_ids=torch.tensor([[place]]),
                use_cache=True,
                logits_to_keep=1,
            )


@torch.no_grad()
def bench_quality(
    name: str,
    model: Any,
    windows: Sequence[Tensor],
    recipes: Sequence[Recipe],
    machine: Machine,
    *,
    calibration: Sequence[Tensor] | None = None,
    rounds: int = 0,
    started: Callable[[str], object] = lambda what: None,
) -> Iterator[QualityRow]:
    """Compile a model made by each recipe, in turn.

    Args:
        name: what to call it.
        model: a causal language model of Transformers.
        windows: ids `[1, tokens]` that its perplexity is of; speed is that of the first.
        recipes: the first is `dense`.
        machine: limits of this machine.
        calibration: ids `[1, tokens]` for recipes that sparsify.
        rounds: samples of each time; 0 times nothing.
        started: called with each recipe before it is compiled.

    Raises:
        SparseCompileError: a recipe cannot be followed.
    """
    torch._dynamo.reset()
    dense = Compiled(model, "inductor")
    reference = 0.0
    linears = {id(m.weight): m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)}
    dense_bytes = sum(weight.numel() * weight.element_size() for weight in linears.values())
    for recipe in recipes:
        started(recipe.text)
        # All models share one code object; beyond the limit Dynamo would run them as they are.
        with torch._dynamo.config.patch(
            recompile_limit=8 * len(recipes), fail_on_recompile_limit_hit=True
        ):
            options: Mapping[str, Any] = recipe.options
            compiler = Compiler(**options)
            compiled, size, packed = dense, dense_bytes, ""
            if recipe.options or recipe.sparsify:
                made = copy.deepcopy(model)
                if recipe.sparsify:
                    batches = list(calibration or ()) or None
                    sparsify(made, recipe.sparsify, method=recipe.method, calibration=batches)
                compiled = Compiled(made, compiler)
            perplexity = compiled.perplexity(windows)
            reference = reference or perplexity
            if compiled is not dense:
                report = compiler.report
                size = report.packed_bytes
                packed = f"{sum(node.packed for node in report.linears)} of {len(report.linears)}"
            speeds = _speeds(compiled, dense, windows[0], rounds)
        yield QualityRow(
            **vars(Environment.here(machine.cpu)),
            model=name,
            dtype=str(model.dtype).removeprefix("torch."),
            recipe=recipe.text,
            perplexity=perplexity,
            over_dense=100 * (perplexity / reference - 1),
            mbytes=size / 1e6,
            packed=packed,
            prefill=speeds[0][0],
            prefill_ratio=speeds[0][1],
            decode=speeds[1][0],
            decode_ratio=speeds[1][1],
        )


def _speeds(
    compiled: Compiled, dense: Compiled, ids: Tensor, rounds: int
) -> list[tuple[float, float]]:
    """Of prefill and decode: tokens a second, and that over the dense model's."""
    if not rounds:
        return [(0.0, 0.0)] * 2
    found = []
    for tokens, work in ((ids.shape[1], Compiled.read), (STEPS, Compiled.decode)):
        each = {"dense": dense, "own": compiled}
        timed = interleaved(
            {name: _call(work, model, ids) for name, model in each.items()}, rounds=rounds
        )
        own = timed["own"].seconds
        found.append((tokens / own, timed["dense"].seconds / own))
    return found


def _call(
    work: Callable[[Compiled, Tensor], object], compiled: Compiled, ids: Tensor
) -> Callable[[], object]:
    return lambda: work(compiled, ids)
