"""A decomposition of another kind: weights that are the outer product of two vectors."""

from __future__ import annotations

import torch
from torch import Tensor

import sparsecompile as sc
from sparsecompile.formats.expression import Shape


class OuterProduct(sc.Decomposition):
    """`weight = u v`, `u` `[n, 1]` and `v` `[1, k]`, where that is exact."""

    family, exact = "outer_product", True

    def form(self, shape: tuple[int, int]) -> sc.Expression[Shape]:
        return sc.Product((sc.Leaf((shape[0], 1)), sc.Leaf((1, shape[1]))))

    def split(self, weight: Tensor) -> sc.Expression[Tensor]:
        row = int(weight.abs().sum(1).argmax())
        column = int(weight[row].abs().argmax())
        u, v = weight[:, column, None], weight[None, row] / weight[row, column]
        if not torch.equal(u.float() @ v.float(), weight.float()):
            raise sc.Reject("it is no outer product")
        return sc.Product((sc.Leaf(u), sc.Leaf(v)))

    def approximate(self, weight: Tensor) -> Tensor:
        u, v = (2.0 ** torch.randint(-3, 3, (size,)) for size in weight.shape)
        u[::3] = 0
        return torch.outer(u, v).to(weight.dtype)
