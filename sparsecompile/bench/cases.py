"""LinearCase: a linear of one size in one format, and how command lines spell many of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from sparsecompile.errors import OptionError
from sparsecompile.formats.structure import Structure
from sparsecompile.structures.recipe import parse_recipe

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DENSE = "dense"
"""The format of a weight that is not pruned."""


@dataclass(frozen=True)
class LinearCase:
    """`y[m, n] = x[m, k] @ W[n, k].T` with a weight that is less than it seems.

    Attributes:
        m: rows of x.
        n: out features.
        k: in features.
        dtype: of x, W and y, such as `bfloat16`.
        format: what the weight is pruned to: a recipe of `options["prune"]`; `dense`; or
            `low_rank(r)`, a product of two of rank r.
    """

    m: int
    n: int
    k: int
    dtype: str
    format: str

    @property
    def shape(self) -> str:
        """`4096x4096`: n, then k."""
        return f"{self.n}x{self.k}"

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense weight."""
        return self.n * self.k * DTYPES[self.dtype].itemsize

    @property
    def pruning(self) -> tuple[Structure, float | None] | None:
        """Structure and share of zeros, or None for `dense` and a low rank."""
        is_whole = self.format == DENSE or rank_of(self.format)
        return None if is_whole else parse_recipe(self.format)

    @property
    def options(self) -> dict[str, Any]:
        """What the backend is asked for: the rank, since a large one is not looked for."""
        rank = rank_of(self.format)
        return {"low_rank": rank / min(self.n, self.k)} if rank else {}

    def weight(self, generator: torch.Generator | None = None) -> Tensor:
        """Random values `[n, k]` in the format.

        Raises:
            OptionError: the format cannot be pruned to.
        """
        dtype, rank = DTYPES[self.dtype], rank_of(self.format)
        if rank:
            u = torch.randn(self.n, rank, generator=generator) / math.sqrt(rank)
            return (u @ torch.randn(rank, self.k, generator=generator)).to(dtype)
        weight = torch.randn(self.n, self.k, generator=generator).to(dtype)
        if self.pruning is not None:
            structure, share = self.pruning
            weight *= structure.prune(weight, share)
        return weight

    def __str__(self) -> str:
        """`4096x4096 m=1 bfloat16 2:4`."""
        return f"{self.shape} m={self.m} {self.dtype} {self.format}"


def linear_cases(shapes: str, rows: str, dtypes: str, formats: str) -> tuple[LinearCase, ...]:
    """Every combination of what comma-separated lists name.

    Args:
        shapes: of the weight, `n x k`, such as `4096x4096,1536x576`.
        rows: numbers of rows of x, such as `1,128`.
        dtypes: such as `bfloat16,float32`.
        formats: such as `2:4,unstructured(0.7),block(16,16,0.5),low_rank(512),dense`.

    Raises:
        OptionError: a list is empty or holds what cannot be used.
    """
    sizes = [_shape(text) for text in split(shapes, "shape")]
    counts = [_rows(text) for text in split(rows, "m")]
    names = [_dtype(text) for text in split(dtypes, "dtype")]
    recipes = [text.replace(" ", "") for text in split(formats, "format")]
    cases = [
        LinearCase(m, n, k, dtype, recipe)
        for (n, k), dtype, recipe, m in product(sizes, names, recipes, counts)
    ]
    # What is wrong with a recipe is better said before an hour of measuring than after.
    for recipe in recipes:
        if recipe != DENSE and not rank_of(recipe):
            parse_recipe(recipe)
    return tuple(cases)


def rank_of(format: str) -> int:
    """That of `low_rank(512)`, 0 of anything else."""
    found = re.fullmatch(r"low_rank\((\d+)\)", format)
    return int(found[1]) if found else 0


def split(text: str, option: str) -> Sequence[str]:
    """Parts between commas, except commas between brackets.

    Raises:
        OptionError: a part is empty.
    """
    parts = [part.strip() for part in re.split(r",(?![^(\[]*[)\]])", text)]
    if not all(parts):
        raise OptionError(option, f"--{option} {text!r} is no list of names between commas")
    return parts


def _shape(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise OptionError(
            "shape", f"--shape {text!r} is no shape; write out features x in features: '4096x1024'"
        )
    return int(found[1]), int(found[2])


def _rows(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise OptionError("m", f"--m {text!r} is no number of rows")
    return int(text)


def _dtype(text: str) -> str:
    if text not in DTYPES:
        raise OptionError("dtype", f"--dtype {text!r} is none of {', '.join(DTYPES)}")
    return text
