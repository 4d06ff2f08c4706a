"""What becomes of a contestant: one that is ready, or one that cannot take part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Sample = Mapping[str, float]
"""What a sample says about itself beside its time, such as `overhead`, in seconds."""


class LeftOut(Exception):  # noqa: N818  (a reason, not a failure)
    """A contestant cannot take part; the text says what it needs."""


@dataclass(frozen=True)
class Prepared:
    """A contestant that is ready.

    Attributes:
        run: one sample; a peer that measures itself says how long it took as `seconds`.
        items: tokens or sentences of a sample.
        what: what is computed with, such as `bfloat16, 8-bit weights`.
        parts: milliseconds by part of one step, for `--profile`.
    """

    run: Callable[[], Sample | None]
    items: int
    what: str
    parts: Callable[[], Mapping[str, float]] | None = None
