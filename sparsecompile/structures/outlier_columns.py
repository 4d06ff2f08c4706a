"""`outlier_columns`: a few columns that are dense, and the zeros of all others."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.decomposition import Decomposition
from sparsecompile.formats.expression import Expression, Leaf, Shape, Sum
from sparsecompile.structures.n_m import NM

_SHARE = 32
_SAMPLED = 64


class OutlierColumns(Decomposition):
    """`weight = rest + columns`: columns without a zero stand alone, at most one in 32.

    Such as those of the features that matter most, which pruning and quantisation leave alone
    (LLM.int8(), arXiv 2208.07339; OWQ, arXiv 2306.02272). Without them the others may be 2:4, or
    empty by whole blocks. Both parts are `[n, k]`, with zeros where the other one is.
    """

    family, exact = "outlier_columns", True

    def form(self, shape: tuple[int, int]) -> Expression[Shape]:
        """`sum([n, k], [n, k])`."""
        return Sum((Leaf(shape), Leaf(shape)))

    def split(self, weight: Tensor) -> Expression[Tensor]:
        """The rest, and the columns.

        Raises:
            Reject: there are none, or too many.
        """
        n, k = weight.shape
        # A sample of the rows tells most columns that hold a zero.
        sampled = (weight[:: max(1, n // _SAMPLED)] != 0).all(0)
        (columns,) = sampled.nonzero(as_tuple=True)
        columns = columns[(weight[:, columns] != 0).all(0)]
        if not 0 < columns.numel() <= k // _SHARE or not n:
            found = f"{columns.numel()} of {k} columns hold no zero"
            raise Reject(f"{found}, 1 to {k // _SHARE} are needed")
        rest, alone = weight.clone(), torch.zeros_like(weight)
        rest[:, columns] = 0
        alone[:, columns] = weight[:, columns]
        return Sum((Leaf(rest), Leaf(alone)))

    def approximate(self, weight: Tensor) -> Tensor:
        """The columns of the largest norm as they are, all others 2:4."""
        count = weight.shape[1] // _SHARE
        columns = weight.float().norm(dim=0).topk(count).indices
        rest = weight.clone()
        rest[:, columns] = 0
        rest *= NM(2, 4).prune(rest)
        rest[:, columns] = weight[:, columns]
        return rest


COMPONENTS = (OutlierColumns(),)
