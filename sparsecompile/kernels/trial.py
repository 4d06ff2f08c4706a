"""Trial: what was measured of one candidate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """One candidate at one m.

    Attributes:
        rows: m.
        candidate: its name; of the baseline `Spec.baseline`.
        seconds: median time of a call, weights not in the cache.
        noise: seconds by which the median is uncertain.
        nbytes: bytes that a call has to move.
        chosen: whether it serves this m.
        cold: whether the weight was read from memory; else it may have been in a cache.
        peak: share of the arithmetic that the device is capable of, counting everything that its
            layout stores; None where that is not known.
        is_baseline: whether it is what the model has.
    """

    rows: int
    candidate: str
    seconds: float
    noise: float
    nbytes: int
    chosen: bool = False
    cold: bool = True
    peak: float | None = None
    is_baseline: bool = False

    @property
    def bandwidth(self) -> float:
        """Bytes a second that it moves at least."""
        return self.nbytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def label(self) -> str:
        """Its short name: `strips decode`, `dense`, `torch`."""
        return short_name(self.candidate)


def short_name(candidate: str) -> str:
    """Template and what the function is for, without the schedule: `strips decode`, `cutlass`."""
    template, *choices = candidate.split() or [candidate]
    last = (c.removeprefix("sc_linear_") for c in choices[-1:] if "=" not in c)
    return " ".join((template, *last))
