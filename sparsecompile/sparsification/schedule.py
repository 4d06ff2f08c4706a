"""SparseSchedule: how sparse weights are after so many steps of training."""

from __future__ import annotations

from dataclasses import dataclass

from sparsecompile.errors import OptionError

SHAPES = ("cubic", "linear", "steps")


@dataclass(frozen=True)
class SparseSchedule:
    """The share of zeros, from nothing or some to what is asked for.

    Attributes:
        steps: of training until the last share is reached.
        last: the share then, and from then on.
        first: the share to begin with.
        shape: `cubic`, fast and then slowly, as of Zhu and Gupta (arXiv 1710.01878); `linear`; or
            `steps`: each update cuts the same share of what is left.
        begin: steps before anything is cut.
        updates: how often masks are chosen anew, the last time at the end.

    Raises:
        OptionError: shares that fall or are none, an unknown shape, or no step.
    """

    steps: int
    last: float
    first: float = 0.0
    shape: str = "cubic"
    begin: int = 0
    updates: int = 10

    def __post_init__(self) -> None:
        """Check all."""
        if not 0 <= self.first <= self.last <= 1:
            raise OptionError(
                "schedule",
                f"shares of zeros rise from 0 to 1, not from {self.first} to {self.last}",
            )
        if self.shape not in SHAPES:
            raise OptionError(
                "schedule", f"no schedule is called {self.shape!r}; known: {', '.join(SHAPES)}"
            )
        if not 0 <= self.begin < self.steps or not 1 <= self.updates <= self.steps - self.begin:
            raise OptionError(
                "schedule",
                f"{self.updates} updates do not fit between step {self.begin} and {self.steps}",
            )

    def is_update(self, step: int) -> bool:
        """Whether masks are chosen anew after a step, counted from 1."""
        return self.begin < step <= self.steps and self._part(step) != self._part(step - 1)

    def share(self, step: int) -> float:
        """The share of zeros after a step."""
        done = self._part(step) / self.updates
        if self.shape == "steps":
            return 1 - float((1 - self.first) ** (1 - done) * (1 - self.last) ** done)
        left = (1 - done) ** 3 if self.shape == "cubic" else 1 - done
        return self.last - (self.last - self.first) * left

    def _part(self, step: int) -> int:
        """How many updates there have been."""
        done = min(max(step - self.begin, 0), self.steps - self.begin)
        return done * self.updates // (self.steps - self.begin)
