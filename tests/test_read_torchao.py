"""Weights that torchao quantised are packed as what they hold, and what it rounds is left to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from packing import Packing
from torch import Tensor, nn
from torch.nn import functional as F

from sparsecompile.testing import assert_no_worse


class Int8Tensor(Tensor):
    """As torchao's: integers, a scale a row, and how activations are rounded, if they are."""

    __module__ = "torchao.quantization"
    qdata: Tensor
    scale: Tensor
    act_quant_kwargs: str | None
    zero_point: Tensor | None = None

    @staticmethod
    def __new__(
        cls: type, qdata: Tensor, scale: Tensor, act_quant_kwargs: str | None = None
    ) -> Int8Tensor:
        made: Any = torch.Tensor._make_wrapper_subclass(cls, qdata.shape, dtype=scale.dtype)
        made.qdata, made.scale, made.act_quant_kwargs = qdata, scale, act_quant_kwargs
        return made  # type: ignore[no-any-return]

    def __tensor_flatten__(self) -> tuple[list[str], str | None]:
        return ["qdata", "scale"], self.act_quant_kwargs

    @classmethod
    def __tensor_unflatten__(
        cls, inner: dict[str, Tensor], context: str | None, size: object, stride: object
    ) -> Int8Tensor:
        return cls(inner["qdata"], inner["scale"], context)

    def dequantize(self) -> Tensor:  # type: ignore[override]
        return self.qdata.to(self.scale.dtype) * self.scale

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            x, weight, *bias = args
            return F.linear(x, weight.dequantize(), *bias)
        return super().__torch_function__(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(func(args[0].qdata), func(args[0].scale), args[0].act_quant_kwargs)
        raise NotImplementedError(func)


class Int5Tensor(Int8Tensor):
    """Of a kind that nothing is known of."""

    __module__ = "torchao.quantization"


def quantized(
    kind: type[Int8Tensor], rounds: str | None, dtype: torch.dtype = torch.float32
) -> nn.Module:
    torch.manual_seed(0)
    qdata = torch.randint(-127, 128, (48, 128), dtype=torch.int8)
    qdata[:, 0] = 127
    linear = nn.Linear(128, 48, dtype=dtype).requires_grad_(False)
    linear.weight = nn.Parameter(kind(qdata, (torch.rand(48, 1) + 0.5).to(dtype), rounds), False)
    return linear


@torch.no_grad()
def test_integers_are_packed_as_they_are_and_changes_are_noticed() -> None:
    model, x, packing = quantized(Int8Tensor, None), torch.randn(3, 128), Packing()
    fast = torch.compile(model, backend=packing)
    weight: Any = model.weight

    def check() -> None:
        exact = F.linear(x.double(), weight.dequantize().double(), model.bias.double())  # type: ignore[operator, arg-type, call-arg, union-attr]
        assert_no_worse(fast(x), model(x), exact)

    check()
    (node,) = packing.compiler.report.nodes
    assert node.format == "dense/int8[scales=float32,lossless]"
    assert not node.lossy
    for change in (lambda: weight.scale.mul_(3), lambda: weight.qdata.neg_()):
        change()
        check()


class WithZeros(Int8Tensor):
    """Of integers with zero points."""

    __module__ = "torchao.quantization"
    zero_point = torch.ones(48, 1, dtype=torch.int8)


WithZeros.__name__ = "Int8Tensor"


@pytest.mark.parametrize(
    ("kind", "rounds", "dtype", "reason"),
    [
        (Int8Tensor, "a row", torch.float32, "changes activations: act_quant_kwargs is set"),
        (Int8Tensor, None, torch.bfloat16, "torch.bfloat16 would round the weight"),
        (WithZeros, None, torch.float32, "has zero points, which its linear leaves out"),
        (Int5Tensor, None, torch.float32, "nothing is known of Int5Tensor"),
    ],
)
@torch.no_grad()
def test_any_other_is_left_to_torchao(
    kind: type[Int8Tensor], rounds: str | None, dtype: torch.dtype, reason: str
) -> None:
    model, x = quantized(kind, rounds, dtype), torch.randn(3, 128, dtype=dtype)
    packing = Packing()
    torch.testing.assert_close(torch.compile(model, backend=packing)(x), model(x), rtol=0, atol=0)
    (node,) = packing.compiler.report.nodes
    assert not node.packed
    (graph,) = packing.compiler.report.graph_reports
    (refusal,) = [r.reason for r in graph.rewrites if r.pass_name == "read_torchao"]
    assert refusal.startswith("left to torchao: ")
    assert refusal.endswith(reason)


def weight_only(name: str) -> Callable[[], Any]:
    def make() -> Any:
        quantization = pytest.importorskip("torchao.quantization")
        if name == "IntxWeightOnlyConfig":
            granularity = quantization.PerGroup(32)
            return quantization.IntxWeightOnlyConfig(torch.int4, granularity=granularity)
        return getattr(quantization, name)()

    return make


@pytest.mark.parametrize(
    ("config", "format"),
    [
        ("Int8WeightOnlyConfig", "dense/int8[scales=float32,lossless]"),
        ("Float8WeightOnlyConfig", "dense/fp8[scales=float32,lossless]"),
        ("IntxWeightOnlyConfig", "dense/int4[group=32,scales=float32,lossless]"),
        ("Int8DynamicActivationInt8WeightConfig", ""),
        ("Int8DynamicActivationIntxWeightConfig", ""),
    ],
)
@torch.no_grad()
def test_configurations_of_torchao(config: str, format: str) -> None:
    torch.manual_seed(0)
    made = weight_only(config)()
    model, x, packing = nn.Sequential(nn.Linear(128, 48)), torch.randn(3, 128), Packing()
    pytest.importorskip("torchao.quantization").quantize_(model, made)
    weight, bias = model[0].weight, model[0].bias
    expected, fast = model(x), torch.compile(model, backend=packing)
    (result,) = (fast(x),)
    (node,) = packing.compiler.report.nodes
    if format:
        exact = F.linear(x.double(), weight.dequantize().double(), bias.double())
        assert_no_worse(result, expected, exact)
        assert node.format == format
    else:
        torch.testing.assert_close(result, expected)
        assert not node.packed
