"""Rows of integers as text and back: `0*5,1*7;0*12`."""

from __future__ import annotations

import torch
from torch import Tensor


def runs_text(rows: Tensor) -> str:
    """Of `[rows, places]` integers: value and length of each run, rows between semicolons."""
    texts = []
    for row in rows:
        values, lengths = torch.unique_consecutive(row, return_counts=True)
        pairs = zip(values.tolist(), lengths.tolist(), strict=True)
        texts.append(",".join(f"{int(value)}*{length}" for value, length in pairs))
    return ";".join(texts)


def runs_of(text: str) -> Tensor:
    """What `runs_text` took, int64.

    Raises:
        ValueError: it is no such text, or rows are not of one length.
    """
    rows = []
    for row in text.split(";"):
        runs = [run.partition("*") for run in row.split(",")]
        values = torch.tensor([int(value) for value, _, _ in runs])
        rows.append(values.repeat_interleave(torch.tensor([int(n or 1) for _, _, n in runs])))
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ValueError(f"rows have {lengths} places; give them one length")
    return torch.stack(rows)
