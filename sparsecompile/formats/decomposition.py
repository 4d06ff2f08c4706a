"""Decomposition: how a dense weight becomes an expression of others."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from sparsecompile.component import Family
from sparsecompile.errors import Reject
from sparsecompile.formats.expression import Expression, Shape
from sparsecompile.formats.occupancy import Occupancy


class Decomposition(Family):
    """How a dense weight becomes an expression of parts, each of which finds its own format.

    An instance is one with its parameters; register as many as should be looked for. The contract,
    held by `sparsecompile.testing.decomposition_laws`:

    - the expression of a weight and the shapes of its parts follow from the weight's shape alone:
      `form`. What depends on values, such as how many columns there are, is a bound in `split`.
    - `split` gives an expression of that form or raises `Reject`, and takes what `approximate`
      gives;
    - where it is `exact` the parts, in float32, make every value of the weight again, or one within
      `tolerance`.
    """

    exact: bool
    """Whether the parts make the weight. Only those are looked for unasked."""

    def tolerance(self, dtype: torch.dtype) -> float:
        """How far off what the parts of an exact one make may be; 0 means bit for bit.

        As a share of the norm of every row and of every column, and only as far as rounding takes
        weights of this dtype that are made of such parts.
        """
        return 0.0

    def find(self, weight: Occupancy) -> Decomposition:
        """The one of the family that fits a weight, whose parameters `form` may depend on.

        Quick: it is asked of every weight. By default this one, of weights with zeros.

        Raises:
            Reject: none does, as far as it looks.
        """
        if weight.kept == weight.mask.numel():
            raise Reject("the weight holds no zeros")
        return self

    @abstractmethod
    def form(self, shape: tuple[int, int]) -> Expression[Shape]:
        """The expression of every weight `[n, k]` of a shape, with the shapes of its parts."""

    @abstractmethod
    def split(self, weight: Tensor) -> Expression[Tensor]:
        """The parts of a weight `[n, k]`, of its dtype.

        Raises:
            Reject: it has none; the reason says what was found and what was needed.
        """

    @abstractmethod
    def approximate(self, weight: Tensor) -> Tensor:
        """A weight near this one, `[n, k]`, that `split` takes if it takes any of this shape."""

    def parts(self, weight: Tensor) -> Expression[Tensor]:
        """What `split` gives.

        Raises:
            Reject: nothing, or other parts than `form` says.
        """
        split, form = self.split(weight), self.form((weight.shape[0], weight.shape[1]))
        found = split.map(lambda leaf: tuple(leaf.shape))
        if found != form:
            raise Reject(f"{self} split the weight into {found}, not into {form}")
        return split
