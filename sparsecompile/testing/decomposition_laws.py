"""Laws of decompositions: parts make the weight again, wherever they are kept and computed with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsecompile.codecs.float import Float
from sparsecompile.compiler import Compiler
from sparsecompile.errors import Reject
from sparsecompile.formats.decomposition import Decomposition
from sparsecompile.formats.expression import Expression
from sparsecompile.formats.expression_text import parse
from sparsecompile.formats.occupancy import Occupancy
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.registry import Registry
from sparsecompile.storage.load import load
from sparsecompile.storage.save import save
from sparsecompile.structures.csr import CSR
from sparsecompile.testing.laws import assert_no_worse
from sparsecompile.testing.storage_laws import same_bits
from sparsecompile.weights.packed_tensor import PackedTensor
from sparsecompile.weights.stored import store

ROWS = 5


def check_decomposition(
    decomposition: Decomposition, weight: Tensor, registry: Registry, path: Path
) -> bool:
    """Parts have the form that was promised, make the weight again, and go into files and back.

    Args:
        decomposition: a registered one.
        weight: `[n, k]`; where it is refused there is nothing to check.
        registry: has the decomposition.
        path: a file that may be written.

    Returns:
        Whether there was something to check.

    Raises:
        AssertionError: a law does not hold.
    """
    try:
        decomposition = decomposition.find(Occupancy(weight))
        split = decomposition.split(weight)
    except Reject:
        return False
    assert registry.decomposition(str(decomposition)) == decomposition
    shape = (weight.shape[0], weight.shape[1])
    assert split.map(lambda part: tuple(part.shape)) == decomposition.form(shape), "form"
    assert split.shape == shape
    assert split.dtype == weight.dtype
    made = split.evaluate(Tensor.float).to(weight.dtype)
    if decomposition.exact:
        _check_made(split, weight, decomposition.tolerance(weight.dtype))
    packed = split.map(Format(CSR(), Float()).pack)
    assert packed.exact
    torch.testing.assert_close(packed.unpack(), made, rtol=0, atol=0, equal_nan=True)
    formats = packed.map(lambda leaf: leaf.format)
    assert parse(str(formats), registry.format) == formats, "text"
    _check_storage(packed, path)
    return True


def _check_made(split: Expression[Tensor], weight: Tensor, tolerance: float) -> None:
    """Bit for bit, or every row and column within a share of its norm."""
    if not tolerance:
        made = split.evaluate(Tensor.float).to(weight.dtype)
        torch.testing.assert_close(made, weight, rtol=0, atol=0, equal_nan=True)
        return
    off = split.evaluate(Tensor.double) - weight.double()
    for dim in (0, 1):
        assert bool((off.norm(dim=dim) <= tolerance * weight.double().norm(dim=dim)).all())


def _check_storage(packed: Expression[Packed], path: Path) -> None:
    stored, dense, holder = store(packed), packed.unpack(), nn.Module()
    holder.weight = nn.Parameter(PackedTensor(stored), requires_grad=False)
    assert same_bits(stored.unpack(), dense)
    rows = torch.arange(dense.shape[0]).flip(0)[::3]
    torch.testing.assert_close(stored.rows(rows), dense[rows], equal_nan=True)
    save(holder, path)
    loaded = load(path)["weight"]
    assert isinstance(loaded, PackedTensor)
    found = loaded.packed
    assert isinstance(found, Expression)
    assert str(loaded.stored.format) == str(packed.map(lambda leaf: leaf.format))
    for kept, back in zip(packed.leaves(), found.leaves(), strict=True):
        assert (back.slots, back.exact, back.dtype) == (kept.slots, kept.exact, kept.dtype)
        for name, tensor in kept.tensors.items():
            assert same_bits(back.tensors[name], tensor), f"{name} came back different"


def check_compiled(
    decomposition: Decomposition,
    weight: Tensor,
    registry: Registry,
    finish: Callable[..., Any],
) -> bool:
    """A compiled linear of the parts is as exact as torch's, and follows its weight.

    What is written into the weight is in the next result. Where it can no longer be split, or a
    part no longer fits its format, the graph runs dense and says so once.

    Args:
        decomposition: an exact one.
        weight: `[n, k]`, finite. Where another format is smaller there is nothing to check.
        registry: has the decomposition.
        finish: see `Compiler.compile`.

    Returns:
        Whether there was something to check.

    Raises:
        AssertionError: a law does not hold.
    """
    try:
        decomposition = decomposition.find(Occupancy(weight))
        parts = decomposition.split(weight).leaves()
    except Reject:
        return False
    compiler = Compiler(registry, formats=_smallest(parts, registry), tune="off")
    n, k = weight.shape
    model = nn.Linear(k, n, dtype=weight.dtype).requires_grad_(False)
    model.weight.copy_(weight)
    x = torch.randn(ROWS, k).to(weight.dtype)
    fast = torch.compile(model, backend=lambda gm, inputs: compiler.compile(gm, inputs, finish))
    with torch.no_grad():
        _check_result(fast, model, x)
        text = f"{decomposition}: "
        if not all(node.expression.startswith(text) for node in compiler.report.nodes):
            return False
        model.weight.mul_(2)
        _check_result(fast, model, x)
        assert not compiler.report.misfits
        model.weight.copy_(torch.randn(n, k))
        for _ in range(2):
            _check_result(fast, model, x)
        assert len(compiler.report.misfits) == int(_is_refused(decomposition, model.weight))
        model.weight.copy_(weight)
        _check_result(fast, model, x)
    return True


def _smallest(parts: Sequence[Tensor], registry: Registry) -> list[str]:
    """The formats in which parts take the fewest bytes, of those that can be packed."""
    found = []
    for part in parts:
        nbytes = {}
        for format in Compiler(registry).formats:
            try:
                nbytes[str(format)] = format.pack(part).nbytes
            except Reject:
                continue
        found += sorted(nbytes, key=nbytes.__getitem__)[:1]
    return sorted(set(found))


def _is_refused(decomposition: Decomposition, weight: Tensor) -> bool:
    try:
        decomposition.split(weight)
    except Reject:
        return True
    return False


def _check_result(fast: Callable[..., Any], model: nn.Linear, x: Tensor) -> None:
    exact = copy.deepcopy(model).double()(x.double())
    assert_no_worse(fast(x), model(x), exact)
