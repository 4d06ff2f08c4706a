"""Distillation: a model learns from what another one predicts."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from sparsecompile.errors import OptionError

KINDS = ("forward", "reverse", "js")


@dataclass(frozen=True)
class Distillation:
    """`alpha * divergence + (1 - alpha) * task`, with the divergence of two models' predictions.

    Attributes:
        kind: `forward`, KL(teacher || student), which covers all that the teacher finds likely
            (Hinton et al., arXiv 1503.02531); `reverse`, KL(student || teacher), which leaves out
            what the teacher finds unlikely (MiniLLM, arXiv 2306.08543); `js`, the mean of both from
            the predictions' mean.
        alpha: share of the divergence.
        temperature: both predictions are softened by it; the loss has its square as a factor, so
            that gradients keep their size.

    Raises:
        OptionError: an unknown kind, `alpha` not from 0 to 1, or `temperature` not above 0.
    """

    kind: str = "forward"
    alpha: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check all."""
        if self.kind not in KINDS:
            raise OptionError(
                "kind", f"no divergence is called {self.kind!r}; known: {', '.join(KINDS)}"
            )
        if not 0 <= self.alpha <= 1:
            raise OptionError("alpha", f"alpha must be from 0 to 1, not {self.alpha}")
        if not self.temperature > 0:
            raise OptionError(
                "temperature", f"the temperature must be above 0, not {self.temperature}"
            )

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        task: Tensor | None = None,
        where: Tensor | None = None,
    ) -> Tensor:
        """The loss, a mean over positions.

        Args:
            student: logits `[..., classes]`, with gradients.
            teacher: logits of the same shape.
            task: the loss of the task itself, where `alpha` is below 1.
            where: positions that count, `[...]` bool; all by default.

        Raises:
            OptionError: `alpha` is below 1, and there is no loss of the task.
        """
        ours, theirs = (
            (logits.float() / self.temperature).log_softmax(-1)
            for logits in (student, teacher.detach())
        )
        each = self._divergence(ours, theirs)
        distilled = (each if where is None else each[where]).mean() * self.temperature**2
        if self.alpha == 1:
            return distilled
        if task is None:
            raise OptionError("alpha", f"alpha of {self.alpha} needs the loss of the task itself")
        return self.alpha * distilled + (1 - self.alpha) * task

    def _divergence(self, ours: Tensor, theirs: Tensor) -> Tensor:
        if self.kind == "forward":
            return _kl(theirs, ours)
        if self.kind == "reverse":
            return _kl(ours, theirs)
        mean = torch.logaddexp(ours, theirs) - log(2)
        return (_kl(theirs, mean) + _kl(ours, mean)) / 2


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Of logarithms of probabilities: `[...]`."""
    return (p.exp() * (p - q)).sum(-1)
