"""Whether linears that take the place of one are faster together, as far as that is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
from sparsecompile.operators.linear.operator import density_of
from sparsecompile.structures.dense import Dense
from sparsecompile.weights.expression import Binding
from sparsecompile.weights.packing import packer


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

    def problem(self, x: Tensor, dense: DenseUse, tune: str) -> Problem[KernelSpec]:
        """What its linear needs a kernel for, without bias and epilogue."""
        rows, is_dynamic = rows_of(x)
        return Problem(
            spec=KernelSpec(self.format, x.dtype),
            shape=self.survey.shape,
            rows=rows,
            is_dynamic=is_dynamic,
            dense=dense,
            tune=tune,
            density=density_of([self.survey.zeros]),
            layout_rows=LAYOUT_ROWS if is_dynamic else rows,
        )

    def sample(self, edit: Edit) -> Callable[[], Sample]:
        """What packs it, for measurements."""
        pack = packer(self.binding, edit.weights.live(self.binding), self.format)
        return lambda: Contents(pack())


def is_faster(parts: Sequence[Runner], whole: Runner, x: Tensor, tune: str, edit: Edit) -> bool:
    """Whether the linears of some weights, one after the other, take less time than that of one.

    Args:
        parts: their weights.
        whole: the weight of the one, which may run dense, too.
        x: its input.
        tune: as in `Options`.
        edit: the graph.

    Returns:
        True; False where nothing is measured.

    Raises:
        Reject: they take as long at some m, or the weight is too small for any gain.
    """
    rows, _ = rows_of(x)
    if tune == "off":
        return False
    if reason := edit.device.codegen.nothing_to_gain(whole.survey.shape, rows, x.dtype):
        raise Reject(reason)
    problems = [part.problem(x, DenseUse.NEVER, tune) for part in parts]
    problems.append(whole.problem(x, DenseUse.ANYWHERE, tune))
    samples = [runner.sample(edit) for runner in (*parts, whole)]
    try:
        found = edit.device.lower(dict(zip(problems, samples, strict=True)))
    except (BuildError, CacheError):
        # Lowering meets the same, and says so.
        return False
    for m in rows:
        *ours, theirs = (_chosen(found[problem], m) for problem in problems)
        if theirs is None or None in ours:
            return False
        taken = sum(trial.seconds + trial.noise for trial in ours if trial is not None)
        if taken >= theirs.seconds:
            figures = f"{taken * 1e3:.3g} ms, {theirs.label} {theirs.seconds * 1e3:.3g} ms"
            raise Reject(f"is no faster: m={m} {figures}")
    return True


def _chosen(lowering: Lowering, m: int) -> Trial | None:
    """What was measured of that which serves an m, if something was."""
    return next((t for t in lowering.trials if t.chosen and t.rows == m), None)
