"""Whether linears that take the place of others are faster, as far as that is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.codecs.float import Float
from sparsecompile.detection.survey import Survey
from sparsecompile.errors import BuildError, CacheError, Reject
from sparsecompile.formats.packed import Format
from sparsecompile.graph.edit import Edit
from sparsecompile.kernels.contents import Contents, Sample
from sparsecompile.kernels.kernel import Lowering
from sparsecompile.kernels.problem import LAYOUT_ROWS, DenseUse, Problem, rows_of
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.trial import Trial
from sparsecompile.operators.linear.operator import Linear, density_of
from sparsecompile.structures.dense import Dense
from sparsecompile.weights.expression import Apply, Binding, Leaf
from sparsecompile.weights.packing import packer
from sparsecompile.weights.parts import has_parts

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost


@dataclass(frozen=True)
class Runner:
    """A weight in the best of its formats, or as it is.

    Attributes:
        binding: the weight.
        survey: what was found in it.
    """

    binding: Binding
    survey: Survey

    @property
    def format(self) -> Format:
        """Its format; `dense/float` where none is smaller."""
        return self.survey.best or Format(Dense(), Float())

    def problem(self, x: Tensor, tune: str, edit: Edit) -> Problem[KernelSpec]:
        """What its linear needs a kernel for, without bias and epilogue."""
        rows, is_dynamic = rows_of(x)
        dense = self._dense_use
        needs_copy = dense is DenseUse.ALONE and not edit.weights.grad
        return Problem(
            spec=KernelSpec(self.format, x.dtype),
            shape=self.survey.shape,
            rows=rows,
            is_dynamic=is_dynamic,
            dense=dense,
            tune=tune,
            density=density_of([self.survey.zeros]),
            layout_rows=LAYOUT_ROWS if is_dynamic else rows,
            dense_copy=edit.device.codegen.dense_copy(x.dtype) if needs_copy else None,
        )

    @property
    def _dense_use(self) -> DenseUse:
        """As in lowering: parts with zeros never run dense, others need a copy for it."""
        binding = self.binding
        if isinstance(binding, Apply) and binding.function is torch.t:
            (binding,) = binding.args
        if isinstance(binding, Leaf):
            return DenseUse.ANYWHERE
        if self.format.structure.family != "dense" and has_parts(self.binding):
            return DenseUse.NEVER
        return DenseUse.ALONE

    def cost(self, x: Tensor, edit: Edit) -> Cost:
        """What its linear has to do at least."""
        from sparsecompile.kernels.cost import Cost

        survey = self.survey
        whole = Linear().dense_cost(self.problem(x, "off", edit))
        kept = 1 - survey.zeros * (survey.best is not None)
        nbytes = whole.nbytes - survey.dense_bytes + survey.best_bytes
        return Cost(nbytes, whole.operations * kept, whole.kind)

    def sample(self, edit: Edit) -> Callable[[], Sample]:
        """What packs it, for measurements."""
        pack = packer(self.binding, edit.weights.live(self.binding), self.format)
        return lambda: Contents(pack())


def is_faster(
    ours: Sequence[Runner], theirs: Sequence[Runner], x: Tensor, tune: str, edit: Edit
) -> bool:
    """Whether linears, one after the other, take less time than those that compute the same now.

    Args:
        ours: their weights.
        theirs: the weights of those that there are; they may run dense, too.
        x: the input of both.
        tune: as in `Options`.
        edit: the graph.

    Returns:
        True; False where nothing is measured.

    Raises:
        Reject: they take as long at some m, or the weights are too small for any gain.
    """
    rows, _ = rows_of(x)
    if tune == "off":
        return False
    too_small = (edit.device.codegen.nothing_to_gain(r.survey.shape, rows, x.dtype) for r in theirs)
    if all(reasons := list(too_small)):
        raise Reject(reasons[0])
    runners = (*ours, *theirs)
    problems = [runner.problem(x, tune, edit) for runner in runners]
    samples = [runner.sample(edit) for runner in runners]
    try:
        found = edit.device.lower(dict(zip(problems, samples, strict=True)))
    except (BuildError, CacheError):
        # Lowering meets the same, and says so.
        return False
    for m in rows:
        trials = [trial for problem in problems if (trial := _chosen(found[problem], m))]
        if len(trials) < len(runners):
            return False
        new, old = trials[: len(ours)], trials[len(ours) :]
        taken, now = sum(t.seconds + t.noise for t in new), sum(t.seconds for t in old)
        if taken >= now:
            names = " + ".join(dict.fromkeys(trial.label for trial in old))
            raise Reject(f"is no faster: m={m} {taken * 1e3:.3g} ms, {names} {now * 1e3:.3g} ms")
    return True


def _chosen(lowering: Lowering, m: int) -> Trial | None:
    """What was measured of that which serves an m, if something was."""
    return next((t for t in lowering.trials if t.chosen and t.rows == m), None)
