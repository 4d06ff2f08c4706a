"""The ways to compute one linear that `bench linear` compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsecompile.bench.cases import LinearCase
from sparsecompile.compiler import Compiler
from sparsecompile.errors import SparseCompileError

LINEAR = "linear"
"""The candidate that speed-ups are against."""
INDUCTOR = "inductor"
SPARSE = "sparse"


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to compute a case.

    Attributes:
        name: `linear`, `onednn`, `inductor`, `sparse`, or `sparse int4` with what was asked for.
        run: one call for every copy of the layer; gives the last result.
        weight_bytes: that one call reads of the weight.
        dense: whether it reads the dense weight.
        kernel: what the sparse backend chose; empty for the others.
    """

    name: str
    run: Callable[[], Tensor]
    weight_bytes: int
    dense: bool = True
    kernel: str = ""


@dataclass(frozen=True, eq=False)
class Subject:
    """A case with its tensors.

    Attributes:
        case: the case.
        x: the input `[m, k]`.
        layers: copies of the layer, each with memory of its own.
    """

    case: LinearCase
    x: Tensor
    layers: Sequence[nn.Linear]

    @classmethod
    def of(cls, case: LinearCase, copies: int) -> Subject:
        """Random values, the weight in the case's format.

        Args:
            case: the case.
            copies: of the layer.

        Raises:
            OptionError: the format cannot be pruned to.
        """
        weight = case.weight()
        return cls(
            case,
            torch.randn(case.m, case.k).to(weight.dtype),
            [_layer(weight)] + [_layer(weight.clone()) for _ in range(copies - 1)],
        )

    def error(self, result: Tensor) -> float:
        """Largest error of a result against float64, as a share of the largest value."""
        rows = min(8, self.case.m)
        exact = F.linear(self.x[:rows].double(), self.layers[0].weight.double())
        return float(
            (result[:rows].double() - exact).abs().max() / exact.abs().max().clamp_min(1e-30)
        )


def _layer(weight: Tensor) -> nn.Linear:
    n, k = weight.shape
    layer = nn.Linear(k, n, bias=False, device="meta", dtype=weight.dtype)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer.eval()


def candidates(subject: Subject, options: Sequence[Mapping[str, Any]]) -> list[Candidate]:
    """The dense ones, then the sparse backend once for each set of options.

    Each is compiled once, and its compiled graph serves all copies of the layer.

    Args:
        subject: the case.
        options: of the Compiler, such as `({}, {"quantize": "int4"})`.

    Raises:
        SparseCompileError: the backend failed, or compiled more than one graph.
    """
    x, layers, nbytes = subject.x, subject.layers, subject.case.dense_bytes
    weights = [layer.weight for layer in layers]
    found = [Candidate(LINEAR, _each(lambda weight: F.linear(x, weight), weights), nbytes)]
    found += _onednn(x, weights, nbytes)
    found.append(Candidate(INDUCTOR, _compiled(x, layers, "inductor"), nbytes))
    return found + [_sparse(subject, chosen) for chosen in options]


def _each(function: Callable[[Any], Tensor], items: Sequence[Any]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        for item in items:
            result = function(item)
        return result

    return run


def _onednn(x: Tensor, weights: Sequence[Tensor], nbytes: int) -> list[Candidate]:
    """Weights in the order that oneDNN likes best, which in torch only freezing gives them."""
    if not torch.backends.mkldnn.is_available():
        return []
    reorder, linear = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
    try:
        packed = [reorder(weight, x.shape[0]) for weight in weights]
        linear(x, packed[0], None, "none", [], "")
    except RuntimeError:
        # oneDNN has no bfloat16 or float16 on CPUs without instructions for them.
        return []
    run = _each(lambda weight: linear(x, weight, None, "none", [], ""), packed)
    return [Candidate("onednn", run, nbytes)]


def _compiled(x: Tensor, layers: Sequence[nn.Linear], backend: Any) -> Callable[[], Tensor]:
    def call(x: Tensor, layer: nn.Linear) -> Tensor:
        result: Tensor = layer(x)
        return result

    compiled = torch.compile(call, backend=backend)
    return _each(lambda layer: compiled(x, layer), layers)


def _sparse(subject: Subject, options: Mapping[str, Any]) -> Candidate:
    compiler = Compiler(**subject.case.options, **options)
    run = _compiled(subject.x, subject.layers, compiler)
    run()
    report = compiler.report
    if report.graphs != 1:
        raise SparseCompileError(
            f"{subject.case}: {report.graphs} graphs were compiled for copies of one layer, so "
            "their times would say nothing; report this with the versions that `sparsecompile "
            "version` prints"
        )
    nodes = report.nodes
    name = " ".join((SPARSE, *(str(value) for value in options.values())))
    if len(nodes) == 1 and not nodes[0].packed:
        return Candidate(name, run, nodes[0].dense_bytes, False, f"dense: {nodes[0].reason}")
    # Of a low rank there are two, which may run dense.
    kernels = (f"{n.format} {n.kernel.template}" if n.kernel else "dense" for n in nodes)
    nbytes = sum(node.packed_bytes for node in nodes)
    return Candidate(name, run, nbytes, False, " + ".join(kernels))
