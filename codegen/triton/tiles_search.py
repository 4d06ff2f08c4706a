"""What a full search changes of a tiles template."""

from __future__ import annotations

from collections.abc import Iterator

COLUMNS = {
    "row_n": (8, 32, 8, 16, 32, 4, 4, 16, 64),
    "row_warps": (4, 4, 2, 8, 8, 2, 1, 2, 8),
    "few_n": (32, 64, 128, 128, 32, 64, 64, 64, 128),
    "few_warps": (4, 8, 4, 8, 2, 4, 4, 8, 4),
    "some_n": (64, 128, 128, 128, 64, 64, 32, 64, 128),
    "some_m": (32, 32, 64, 64, 128, 16, 64, 32, 128),
    "some_warps": (4, 4, 4, 8, 8, 4, 4, 8, 8),
    "many_n": (128, 64, 64, 256, 64, 128, 64, 128, 64),
    "many_m": (128, 64, 128, 64, 256, 32, 64, 128, 32),
    "many_warps": (8, 8, 4, 16, 8, 4, 4, 16, 4),
    "stages": (2, 3, 4, 3, 2, 4, 5, 3, 3),
    "programs": (1, 4, 2, 1, 4, 1, 4, 8, 8),
}
"""Read downwards, a schedule a column."""


def variations() -> Iterator[dict[str, int]]:
    """Choices of the schedules, `programs` as a multiple of the GPU's units.

    The functions of a schedule have nothing to do with each other but `stages` and `programs`:
    each is measured alone, so that few schedules have many of each.
    """
    for values in zip(*COLUMNS.values(), strict=True):
        yield dict(zip(COLUMNS, values, strict=True))
