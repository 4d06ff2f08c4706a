"""Regions: several linears, and what stands between them, as one call."""

from __future__ import annotations

import copy
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from blocks import BLOCKS, WIDTH, Block, Llama, RMSNorm
from packing import Packing, sparse_
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.kernels.region import _known
from sparsecompile.testing.laws import assert_no_worse


def made(packing: Packing) -> list[str]:
    """What regions were put in the place of, and why others were not, beginning with `no`."""
    graphs = packing.compiler.report.graph_reports
    found = [r for graph in graphs for r in graph.rewrites if r.pass_name == "join_regions"]
    return [f"no: {r.reason}" if r.reason else r.node for r in found]


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def compiled(model: nn.Module, **options: Any) -> tuple[Any, Packing]:
    torch._dynamo.reset()
    packing = Packing(tune="off", **options)
    return torch.compile(model.eval(), backend=packing, dynamic=False), packing


def inputs(m: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(m)
    return tuple(torch.randn(1, m, WIDTH, generator=generator).to(dtype) for _ in range(2))


CASES = list(zip(BLOCKS, itertools.cycle((torch.float32, torch.bfloat16, torch.float16))))


@pytest.mark.parametrize(("block", "dtype"), [*CASES, (Llama, torch.bfloat16)])
@torch.no_grad()
def test_equals_the_same_ops_one_by_one(
    block: Callable[[], Block], dtype: torch.dtype, threads: Callable[[int], None]
) -> None:
    torch.manual_seed(0)
    model = block().to(dtype)
    wide = copy.deepcopy(model).double()
    for m in (1, 3, 8):
        given = inputs(m, dtype)
        exact, eager = wide(*(x.double() for x in given)), model(*given)
        for count in (1, 2, 4):  # more than there are processors
            threads(count)
            fast, packing = compiled(model)
            results = fast(*given)
            assert len(made(packing)) == 1
            assert not made(packing)[0].startswith("no")
            for ours, torchs, reference in zip(results, eager, exact, strict=True):
                assert_no_worse(ours, torchs, reference)


@torch.no_grad()
def test_all_that_follows_is_one_call() -> None:
    fast, packing = compiled(Llama())
    fast(*inputs(1))
    (graph,) = packing.compiler.report.graph_reports
    assert graph.after.count("sparsecompile.region") == 1
    assert "sparsecompile.linear" not in graph.after
    ((*weights, last),) = graph.regions
    assert sorted(weights) == ["down.weight", "gate.weight", "o.weight", "up.weight"]
    assert last == "next.weight"
    report = packing.compiler.report
    assert "regions, one call for several linears\n  1 x o, gate, up, down, next" in str(report)
    (source,) = [text for name, text in report.sources.items() if name.startswith("region_")]
    assert "void rows_3(" in source


@torch.no_grad()
def test_two_threads_call_one_model() -> None:
    torch.manual_seed(0)
    fast, _ = compiled(Llama())
    given = [inputs(1), tuple(2 * x for x in inputs(1))]
    expected = [fast(*each) for each in given]
    wrong: list[int] = []

    def call(i: int) -> None:
        with torch.no_grad():
            for _ in range(100):
                if not all(map(torch.equal, fast(*given[i]), expected[i])):
                    wrong.append(i)

    workers = [threading.Thread(target=call, args=(i,)) for i in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@torch.no_grad()
def test_a_weight_that_no_longer_fits_runs_alone() -> None:
    torch.manual_seed(0)
    model = Llama()
    fast, packing = compiled(model)
    fast(*inputs(1))
    assert len(made(packing)) == 1
    model.up.weight.fill_(0.01)
    ours, expected = fast(*inputs(1)), model(*inputs(1))
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_gradients_see_every_step() -> None:
    model = Llama().requires_grad_(False)
    fast, packing = compiled(model)
    x, residual = inputs(1)
    fast(x.requires_grad_(), residual)[1].sum().backward()
    assert x.grad is not None
    assert made(packing) == []


@torch.no_grad()
def test_none_if_they_are_not_wanted() -> None:
    fast, packing = compiled(Llama(), regions=False)
    fast(*inputs(1))
    assert made(packing) == []
    with pytest.raises(sc.OptionError, match="'regions' must be True or False"):
        sc.Compiler(regions="yes")


class Two(nn.Module):
    """Two linears and something between them."""

    def __init__(self, between: Callable[..., Any], width: int = WIDTH) -> None:
        super().__init__()
        self.first = sparse_(nn.Linear(WIDTH, WIDTH, bias=False))
        self.second = sparse_(nn.Linear(width, WIDTH, bias=False))
        self.norm, self.between = RMSNorm(), between

    def forward(self, x: Tensor) -> Any:
        given = self.between(self, x, self.first(x))
        return (
            (self.second(given[0]), *given[1:]) if isinstance(given, tuple) else self.second(given)
        )


def _written(model: Two, x: Tensor, y: Tensor) -> Tensor:
    x.add_(1)
    return y


REFUSED: dict[str, Callable[[Two, Tensor, Tensor], Any]] = {
    "x_? is no step|no step of rows": lambda model, x, y: torch.sin(y),
    "its input is not made of the linear before it": lambda model, x, y: (2 * x, y),
    "writes in place in between": _written,
    "has other rows than the linear before it|another number of rows": (
        lambda model, x, y: y.sum(1, keepdim=True)
    ),
    "is not over the columns alone": lambda model, x, y: y - y.mean((-1, -2), keepdim=True),
    "is over more than the columns": (lambda model, x, y: F.layer_norm(y, tuple(y.shape[1:]))),
    "leaves eps to the dtype": lambda model, x, y: F.rms_norm(y, (WIDTH,)),
    "is torch.int32": lambda model, x, y: y.to(torch.int32).to(torch.float32),
    "is torch.float64": lambda model, x, y: (y.to(torch.float64) * 2).float(),
    "given is no step of rows": lambda model, x, y: torch.add(y, x, alpha=2),
    "C++ does not write 1e+39 in float32": lambda model, x, y: torch.tanh(y + 1e39),
    "repeats a column": lambda model, x, y: y * x[..., :1],
    "columns of () are not known": lambda model, x, y: y * x.sum(),
    "no step of rows|gives rows another width": (
        lambda model, x, y: y.reshape(1, -1, 2, WIDTH // 2).reshape(x.shape)
    ),
    "is written for one number a row": lambda model, x, y: torch.sqrt(y * y),
    "is neither rows nor a vector": lambda model, x, y: y + x[0, 0, :1],
    "is no part of rows|no step of rows": lambda model, x, y: y[..., range(WIDTH)],
    "is not over columns": lambda model, x, y: y.chunk(1, dim=0)[0] * 2,
}


@pytest.mark.parametrize("reason", REFUSED)
@torch.no_grad()
def test_what_is_no_region(reason: str) -> None:
    torch.manual_seed(0)
    model = Two(REFUSED[reason])
    fast, packing = compiled(model)
    x, _ = inputs(2)
    expected = model(x.clone())
    torch.testing.assert_close(fast(x.clone()), expected, rtol=1e-4, atol=1e-4)
    (why, *_) = made(packing)
    assert any(part in why for part in reason.split("|")), why
    assert why.startswith("no: ")


@torch.no_grad()
def test_many_rows_and_any_number_of_them() -> None:
    model = Two(lambda model, x, y: model.norm(y))
    fast, packing = compiled(model)
    fast(inputs(9)[0])
    assert "is no stage for 9 rows" in made(packing)[0]
    torch._dynamo.reset()
    packing = Packing(tune="off")
    x = inputs(5)[0]
    torch._dynamo.mark_dynamic(x, 1)
    torch.compile(model, backend=packing)(x)
    assert "varies from call to call" in made(packing)[0]


@torch.no_grad()
def test_columns_that_are_no_whole_vectors() -> None:
    model = nn.Sequential(nn.Linear(64, 40), nn.Softplus(), nn.Linear(40, 64))
    model[1] = nn.SiLU()
    model = nn.Sequential(*(sparse_(m) if isinstance(m, nn.Linear) else m for m in model))

    class Squared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return model[2](torch.square(model[0](x)))

    fast, packing = compiled(Squared())
    fast(inputs(1)[0])
    assert "40 columns are no multiple of 16" in made(packing)[0]


@torch.no_grad()
def test_tensors_that_the_op_refuses() -> None:
    fast, packing = compiled(Llama())
    fast(*inputs(1))
    (graph,) = packing.compiler.report.graph_reports
    key = int(re.findall(r"sparsecompile\.region.*?(\d{9,})\)", graph.after)[0])
    region = _known[key]
    op = torch.ops.sparsecompile.region
    with pytest.raises(RuntimeError, match=f"tensor {region.like} of a region is missing"):
        op(*[None] * 31, torch.zeros(1), key)
    rows = [torch.zeros(1, 1, each.width or 128, dtype=each.dtype) for each in region.inputs]
    rows += [None] * (32 - len(rows))
    wrong = [torch.zeros(1, 1, 7), *rows[1:]]
    with pytest.raises(RuntimeError, match="it must be Float with 64 columns on the CPU"):
        op(*wrong, key)
    other = [r for r, each in enumerate(region.inputs) if each.width and not each.is_vector]
    uneven = list(rows)
    uneven[other[-1]] = torch.zeros(1, 2, WIDTH)
    with pytest.raises(RuntimeError, match="others have 1 rows"):
        op(*uneven, key)
    with pytest.raises(RuntimeError, match="no kernel 12345 in this process"):
        op(*rows, 12345)
