"""The native op: what it refuses, torch's own checks, gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.codegen.cpp import lower
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels import ops
from sparsecompile.kernels.epilogue import MAX_OPERANDS
from sparsecompile.kernels.kernel import Kernel

N, K = 24, 40
ABSENT = (None,) * (1 + MAX_OPERANDS + ops.MAX_DENSE)


@dataclass(frozen=True)
class Case:
    kernel: Kernel
    weight: Tensor
    layout: Tensor


@pytest.fixture(scope="session")
def case(build: Callable[..., Kernel], pack: Callable[..., Packed]) -> Case:
    torch.manual_seed(0)
    kernel = build("n_m[2:4]", torch.float32)
    packed = pack(kernel, N, K)
    return Case(kernel, packed.unpack(), kernel.prepack(packed))


@pytest.fixture(scope="session")
def fused(build: Callable[..., Kernel], pack: Callable[..., Packed]) -> Case:
    torch.manual_seed(0)
    kernel = build("n_m[2:4]", torch.float32, "silu", "mul")
    packed = pack(kernel, N, K)
    return Case(kernel, packed.unpack(), kernel.prepack(packed))


def call(case: Case, x: Tensor, bias: Tensor | None = None, *operands: Tensor) -> Tensor:
    return ops.linear(x, case.layout, bias, operands, N, case.kernel.key)


def test_inputs_that_are_not_contiguous(case: Case) -> None:
    x = torch.randn(K, 2, 6).permute(2, 1, 0)
    torch.testing.assert_close(call(case, x), F.linear(x, case.weight))
    bias = torch.randn(2 * N)[::2]
    torch.testing.assert_close(call(case, x, bias), F.linear(x, case.weight, bias))


def test_a_vector(case: Case) -> None:
    x = torch.randn(K)
    torch.testing.assert_close(call(case, x), F.linear(x, case.weight))


def test_refuses_x(case: Case) -> None:
    with pytest.raises(RuntimeError, match=r"x is Double, the kernel was made for Float; convert"):
        call(case, torch.randn(2, K).double())
    with pytest.raises(RuntimeError, match=r"x has shape \[2, 39\], its last dimension must be 40"):
        call(case, torch.randn(2, K - 1))
    with pytest.raises(RuntimeError, match=r"x has shape \[\], its last dimension must be 40"):
        call(case, torch.tensor(1.0))


def test_refuses_bias(case: Case) -> None:
    with pytest.raises(RuntimeError, match=r"bias has shape \[23\], it must be \[24\]"):
        call(case, torch.randn(2, K), torch.randn(N - 1))
    with pytest.raises(RuntimeError, match="bias is Half"):
        call(case, torch.randn(2, K), torch.randn(N).half())


def test_refuses_operands(case: Case, fused: Case) -> None:
    x, operand = torch.randn(2, K), torch.randn(2, N)
    with pytest.raises(RuntimeError, match="reads 0 tensors, operand0 is one too many"):
        call(case, x, None, operand)
    with pytest.raises(RuntimeError, match="reads 1 tensors, operand0 is missing"):
        call(fused, x)
    with pytest.raises(RuntimeError, match=r"operand0 has shape \[1, 24\], it must be \[2, 24\]"):
        call(fused, x, None, operand[:1])
    with pytest.raises(RuntimeError, match="operand0 is Double"):
        call(fused, x, None, operand.double())


def test_refuses_other_kernels_and_layouts(
    case: Case, build: Callable[..., Kernel], pack: Callable[..., Packed]
) -> None:
    x, linear = torch.randn(2, K), torch.ops.sparsecompile.linear
    with pytest.raises(RuntimeError, match=r"no kernel 12345 in this process: compile the model"):
        linear(x, case.layout, *ABSENT, N, 12345)
    with pytest.raises(RuntimeError, match=r"n is 23, the packed weight has 24 rows"):
        linear(x, case.layout, *ABSENT, N - 1, case.kernel.key)
    other = build("csr", torch.float32)
    layout = other.prepack(pack(other, N, K))
    with pytest.raises(RuntimeError, match="prepack the weight with this kernel"):
        linear(x, layout, *ABSENT, N, case.kernel.key)
    with pytest.raises(RuntimeError, match="must be uint8 on the CPU, not Double"):
        linear(x, case.weight.double(), *ABSENT, N, case.kernel.key)
    with pytest.raises(RuntimeError, match=r"must have two dimensions on the CPU, not \[960\]"):
        linear(x, case.weight.view(-1), *ABSENT, N, case.kernel.key)
    with pytest.raises(RuntimeError, match="hold a header of 128 bytes"):
        linear(x, case.layout[:64], *ABSENT, N, case.kernel.key)
    with pytest.raises(RuntimeError, match="hold a header of 128 bytes"):
        linear(x, case.layout[::2], *ABSENT, N, case.kernel.key)
    cut = case.layout[:-64].clone()
    with pytest.raises(RuntimeError, match=r"is cut off: \d+ of \d+ bytes are there"):
        linear(x, cut, *ABSENT, N, case.kernel.key)
    moved = torch.cat((torch.zeros(1, dtype=torch.uint8), case.layout))[1:]
    with pytest.raises(RuntimeError, match="begin at a multiple of 64 bytes"):
        linear(x, moved, *ABSENT, N, case.kernel.key)


@pytest.mark.parametrize("fuses", [False, True])
@pytest.mark.parametrize("m", [0, 1, 3])
def test_the_dense_weight_serves_in_place_of_the_layout(
    case: Case, fused: Case, fuses: bool, m: int
) -> None:
    """What graphs hand over while a weight does not fit: bias and epilogue stay the kernel's."""
    given, x, bias = fused if fuses else case, torch.randn(m, K), torch.randn(N)
    gates = (torch.randn(m, N),) if fuses else ()
    weight = torch.randn(N, K)
    found = ops.linear(x, weight, bias, gates, N, given.kernel.key)
    expected = F.linear(x, weight, bias)
    torch.testing.assert_close(found, F.silu(expected) * gates[0] if fuses else expected)


def test_gradients_through_the_dense_weight_in_place_of_the_layout(case: Case) -> None:
    x, weight = torch.randn(3, K, requires_grad=True), torch.randn(N, K)
    bias = torch.randn(N, requires_grad=True)
    ops.linear(x, weight, bias, (), N, case.kernel.key).square().sum().backward()
    found = x.grad, bias.grad
    x.grad = bias.grad = None
    F.linear(x, weight, bias).square().sum().backward()
    torch.testing.assert_close(found, (x.grad, bias.grad))


def test_a_call_runs_the_kernel_of_the_layout_that_it_is_given(
    case: Case, build: Callable[..., Kernel], pack: Callable[..., Packed]
) -> None:
    """Kernels with other epilogues tell which one ran."""
    x, number = torch.randn(2, K), 54321
    other = build("csr", torch.float32, "relu")
    packed = pack(other, N, K)
    layouts = {"n_m": case.layout, "csr": other.prepack(packed)}
    want = {"n_m": F.linear(x, case.weight), "csr": F.linear(x, packed.unpack()).relu()}
    codegen = lower.CppCodegen()

    def ran(name: str) -> Tensor:
        return torch.ops.sparsecompile.linear(x, layouts[name], *ABSENT, N, number)

    codegen.serve(number, case.kernel)
    torch.testing.assert_close(ran("n_m"), want["n_m"])
    with pytest.raises(RuntimeError, match="prepack the weight with this kernel"):
        ran("csr")
    codegen.serve(number, other)
    for name in ("n_m", "csr"):
        torch.testing.assert_close(ran(name), want[name])
        like = torch.empty(0)
        dense = torch.ops.sparsecompile.unpack(layouts[name], like, N, K, number)
        assert torch.equal(dense, {"n_m": case.weight, "csr": packed.unpack()}[name])
    # The last one of a layout stays.
    codegen.serve(number, build("csr", torch.float32))
    torch.testing.assert_close(ran("csr"), F.linear(x, packed.unpack()))


def test_refuses_to_unpack_to_another_shape_or_dtype(case: Case) -> None:
    unpack = torch.ops.sparsecompile.unpack
    with pytest.raises(
        RuntimeError, match=r"unpack to \[24, 41\] from row 0, the packed weight is \[24, 40\]"
    ):
        unpack(case.layout, case.weight, N, K + 1, case.kernel.key)
    with pytest.raises(RuntimeError, match=r"unpack to \[24, 40\] from row 1, the packed"):
        unpack(case.layout, case.weight, N, K, case.kernel.key, 1)
    rows = (case.layout, torch.tensor([0, N]), case.weight, N, K, case.kernel.key)
    with pytest.raises(IndexError, match="row 24 of 24"):
        torch.ops.sparsecompile.unpack_rows(*rows)
    with pytest.raises(RuntimeError, match="unpack like Half, the packed weight is Float"):
        unpack(case.layout, case.weight.half(), N, K, case.kernel.key)


# opcheck reads `.grad` of what it cloned.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_torch_finds_nothing_wrong_with_linear(
    case: Case, with_bias: bool, requires_grad: bool
) -> None:
    x = torch.randn(3, K, requires_grad=requires_grad)
    bias = torch.randn(N, requires_grad=requires_grad) if with_bias else None
    args = (x, case.layout, bias, *ABSENT[1:], N, case.kernel.key)
    torch.library.opcheck(torch.ops.sparsecompile.linear.default, args)


def test_torch_finds_nothing_wrong_with_an_epilogue_and_unpack(fused: Case) -> None:
    operand = torch.randn(3, N)
    args = (torch.randn(3, K), fused.layout, None, operand, *ABSENT[2:], N, fused.kernel.key)
    torch.library.opcheck(torch.ops.sparsecompile.linear.default, args)
    unpack = (fused.layout, fused.weight, N, K, fused.kernel.key)
    torch.library.opcheck(torch.ops.sparsecompile.unpack.default, unpack)
    rows = (fused.layout, torch.tensor([3, 1]), fused.weight, N, K, fused.kernel.key)
    torch.library.opcheck(torch.ops.sparsecompile.unpack_rows.default, rows)


@pytest.mark.parametrize("lead", [(5,), (2, 3)])
def test_gradients_are_those_of_the_dense_linear(case: Case, lead: tuple[int, ...]) -> None:
    x = torch.randn(*lead, K, requires_grad=True)
    bias = torch.randn(N, requires_grad=True)
    weight = case.weight.clone()
    grad = torch.randn(*lead, N)
    ours = torch.autograd.grad(call(case, x, bias), (x, bias), grad)
    dense = torch.autograd.grad(F.linear(x, weight, bias), (x, bias), grad)
    for mine, expected in zip(ours, dense, strict=True):
        torch.testing.assert_close(mine, expected)


def test_gradient_of_x_alone_and_of_bias_alone(case: Case) -> None:
    x, bias = torch.randn(2, K), torch.randn(N, requires_grad=True)
    call(case, x, bias).sum().backward()
    torch.testing.assert_close(bias.grad, torch.full((N,), 2.0))
    x.requires_grad_()
    call(case, x).sum().backward()
    torch.testing.assert_close(x.grad, case.weight.sum(0).expand(2, K))


def test_no_graph_where_no_gradient_is_wanted(case: Case) -> None:
    x = torch.randn(2, K, requires_grad=True)
    with torch.no_grad():
        assert not call(case, x).requires_grad
    with torch.inference_mode():
        assert call(case, x).is_inference()
    assert not call(case, x.detach()).requires_grad


def test_refuses_gradients_through_a_fused_epilogue(fused: Case) -> None:
    x, operand = torch.randn(2, K), torch.randn(2, N, requires_grad=True)
    with pytest.raises(RuntimeError, match="gradients through a fused epilogue are not supported"):
        call(fused, x, None, operand)
    with torch.no_grad():
        call(fused, x, None, operand)
