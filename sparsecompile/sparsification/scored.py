"""Scored: methods that keep what has the largest scores, of each layer or of all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsecompile.errors import OptionError
from sparsecompile.sparsification.gradients import Gradients
from sparsecompile.sparsification.method import Method, Problem
from sparsecompile.sparsification.targets import Target
from sparsecompile.structures.bitmap import Bitmap
from sparsecompile.structures.magnitude import smallest

_SCOPES = ("layer", "global")


@dataclass(frozen=True)
class Scored(Method):
    """Keeps what has the largest scores, and changes no value that stays.

    Attributes:
        scope: `layer`, as much of every layer; or `global`, for unstructured patterns: the smallest
            scores of all layers of a pattern go, more of one and less of another.
    """

    scope: str = "layer"

    def __post_init__(self) -> None:
        """Check the scope."""
        if self.scope not in _SCOPES:
            raise OptionError("scope", f"scope {self.scope!r} is none of {', '.join(_SCOPES)}")

    @abstractmethod
    def scores(self, problem: Problem) -> Tensor:
        """What has a small magnitude here goes, `[n, k]`."""

    def solve(self, problem: Problem) -> Tensor:
        """Cut, and round."""
        return problem.keep(problem.mask(self.scores(problem)))


def shared_out(
    method: Method, targets: Sequence[Target], gradients: Mapping[str, Gradients]
) -> list[Target]:
    """Targets with the shares of zeros that the method's scope makes.

    Raises:
        OptionError: scores of all layers are not known at once, or a pattern has no share.
    """
    if not isinstance(method, Scored) or method.scope == "layer":
        return list(targets)
    if method.calibrated:
        raise OptionError("scope", f"{method.name} calibrates layer by layer: its scope is 'layer'")
    found: dict[str, Target] = {}
    for pattern in dict.fromkeys(target.pattern for target in targets):
        if not isinstance(pattern.structure, Bitmap) or pattern.share is None:
            raise OptionError(
                "scope",
                f"pattern '{pattern}' keeps as much of every layer: scope 'global' goes with "
                "patterns such as 'unstructured(0.5)'",
            )
        members = [target for target in targets if target.pattern == pattern]
        scores = [_scores(method, target, gradients.get(target.name)) for target in members]
        gone = smallest(torch.cat(scores), round(pattern.share * sum(map(len, scores))))
        for target, part in zip(members, gone.split([len(each) for each in scores]), strict=True):
            own = replace(pattern, share=int(part.sum()) / len(part))
            found[target.name] = replace(target, patterns=(own,))
    return [found[target.name] for target in targets]


def _scores(method: Scored, target: Target, gradients: Gradients | None) -> Tensor:
    weight = target.weight.float()
    problem = Problem(weight, (len(weight),), target.pattern, gradients=gradients)
    return method.scores(problem).abs().flatten()
