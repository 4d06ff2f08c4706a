"""2:4 library calls: packed as torch packs, refused with reasons, called on fake GPUs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from sparsecompile.codegen.libraries.cusparselt import CuSparseLt
from sparsecompile.codegen.libraries.cutlass import Cutlass
from sparsecompile.codegen.libraries.two_of_four import compress
from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.extern import PackedExtern
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.registry import default_registry
from sparsecompile.testing import weights

REGISTRY = default_registry()
FORMAT = REGISTRY.format("n_m[2:4]/float")
DTYPES = (torch.float16, torch.bfloat16)
EXTERNS = (Cutlass(), CuSparseLt())
AMPERE = Target.parse("sm_80")
DEFAULT = {"cutlass": Schedule(), "cusparselt": Schedule.of({"alg_id": 0})}


def pack(n: int, k: int, dtype: torch.dtype = torch.float16) -> Packed:
    weight = torch.randn(n, k).to(dtype)
    return FORMAT.pack(weight * FORMAT.structure.prune(weight))


def cutlass_parts(layout: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
    rows, columns = (
        -(-size // unit) * unit for size, unit in zip(packed.shape, (32, 64), strict=True)
    )
    size = rows * columns // 2 * packed.dtype.itemsize
    values = layout[:size].view(packed.dtype).view(rows, columns // 2)
    return values, layout[size:].view(torch.int16).view(rows, columns // 16)


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int16)


@given(st.data())
def test_cutlass_layout_is_torchs_own(data: st.DataObject) -> None:
    weight = data.draw(weights(FORMAT.structure, dtypes=DTYPES))
    packed = FORMAT.pack(weight)
    n, k = weight.shape
    values, positions = cutlass_parts(Cutlass().prepack(packed, Schedule(), REGISTRY), packed)
    dense = F.pad(packed.unpack(), (0, -k % 64, 0, -n % 32))
    if not dense.numel():
        assert not values.numel()
        return
    want_values, want_positions = sparse_semi_structured_from_dense_cutlass(dense)
    assert torch.equal(bits(values), bits(want_values))
    assert torch.equal(positions, want_positions)
    back = sparse_semi_structured_to_dense_cutlass(values, positions)
    torch.testing.assert_close(back, dense, rtol=0, atol=0, equal_nan=True)


def test_every_mask_of_a_group() -> None:
    masks = torch.tensor([[m >> p & 1 for p in range(4)] for m in range(16)])
    masks = masks[masks.sum(1) <= 2]
    weight = (masks * torch.arange(1, 5)).half().view(1, -1)
    packed = FORMAT.pack(weight)
    values, positions = compress(packed, 32, 64)
    got_values, got = cutlass_parts(Cutlass().prepack(packed, Schedule(), REGISTRY), packed)
    want_values, want = sparse_semi_structured_from_dense_cutlass(
        F.pad(weight, (0, 64 - weight.shape[1], 0, 31))
    )
    assert torch.equal(got_values, want_values)
    assert torch.equal(got, want)
    assert torch.equal(values, want_values)
    # All zero, one kept, two kept: as torch's comment lists them.
    assert positions[0, : len(masks)].tolist() == [14, 8, 9, 4, 14, 8, 9, 14, 12, 13, 14]


def test_cusparselt_starts_from_the_dense_weight() -> None:
    packed = pack(20, 36)
    layout = CuSparseLt().prepack(packed, DEFAULT["cusparselt"], REGISTRY)
    dense = layout.view(torch.float16).view(32, 48)
    assert torch.equal(dense[:20, :36], packed.unpack())
    assert not dense[20:].any()
    assert not dense[:, 36:].any()


@pytest.mark.parametrize("extern", EXTERNS, ids=lambda e: e.name)
@pytest.mark.parametrize(
    ("arch", "reason"),
    [
        ("sm_75", "2:4 tensor cores need sm_80, this is sm_75"),
        ("gfx942", "2:4 tensor cores need an NVIDIA GPU, this is gfx942"),
    ],
)
def test_gpus_without_sparse_tensor_cores(extern: PackedExtern, arch: str, reason: str) -> None:
    with pytest.raises(Reject) as caught:
        extern.supports(KernelSpec(FORMAT, torch.float16), Target.parse(arch))
    assert caught.value.reason == reason


@pytest.mark.parametrize("extern", EXTERNS, ids=lambda e: e.name)
def test_cpus(extern: PackedExtern) -> None:
    with pytest.raises(Reject, match="a GPU is needed, the target is cpu"):
        extern.supports(KernelSpec(FORMAT, torch.float16), Target.host())


@pytest.mark.parametrize("arch", ["sm_90", "sm_100"])
def test_cutlass_is_for_sm_8x(arch: str) -> None:
    with pytest.raises(Reject, match=f"need sm_80 to sm_89, this is {arch}"):
        Cutlass().supports(KernelSpec(FORMAT, torch.float16), Target.parse(arch))
    for known in ("sm_80", "sm_86", "sm_89"):
        Cutlass().supports(KernelSpec(FORMAT, torch.float16), Target.parse(known))


@pytest.mark.parametrize("extern", EXTERNS, ids=lambda e: e.name)
@pytest.mark.parametrize(
    ("name", "dtype", "activations", "reason"),
    [
        ("n_m[1:4]", torch.float16, "float", "multiplies n_m[2:4], this is n_m[1:4]"),
        ("bitmap", torch.float16, "float", "multiplies n_m[2:4], this is bitmap"),
        ("n_m[2:4]/int8", torch.float16, "float", "is called for float values, these are int8"),
        ("n_m[2:4]", torch.float32, "float", "not for torch.float32, which it rounds"),
        ("n_m[2:4]", torch.float16, "int8", "does not round activations to int8"),
    ],
)
def test_refusals(
    extern: PackedExtern, name: str, dtype: torch.dtype, activations: str, reason: str
) -> None:
    spec = KernelSpec(REGISTRY.format(name), dtype, (), activations)
    with pytest.raises(Reject) as caught:
        extern.supports(spec, AMPERE)
    assert reason in caught.value.reason


def test_a_torch_without_cusparselt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: False)
    with pytest.raises(Reject, match="built without cuSPARSELt; the wheels for CUDA have it"):
        CuSparseLt().supports(KernelSpec(FORMAT, torch.float16), AMPERE)


@pytest.mark.parametrize(("known", "count"), [(None, 4), (37, 37)])
def test_algorithms_are_schedules(
    known: int | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cusparselt, "get_max_alg_id", lambda: known)
    spec = KernelSpec(FORMAT, torch.float16)
    (default,) = CuSparseLt().schedules(spec, AMPERE)
    found = CuSparseLt().search(spec, AMPERE)
    assert found[0] == default == DEFAULT["cusparselt"]
    assert [schedule["alg_id"] for schedule in found] == list(range(count))


def layout_size(extern: PackedExtern, n: int, k: int, dtype: torch.dtype) -> int:
    """Bytes of what the extern's `call` takes."""
    size = extern.prepack(pack(n, k, dtype), DEFAULT[extern.name], REGISTRY).numel()
    return size if extern.name == "cutlass" else size * 9 // 16


@pytest.mark.parametrize("extern", EXTERNS, ids=lambda e: e.name)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 8, 13])
@pytest.mark.parametrize("shape", [(64, 128), (20, 36)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_called_on_a_fake_gpu(
    extern: PackedExtern, dtype: torch.dtype, m: int, shape: tuple[int, int], with_bias: bool
) -> None:
    n, k = shape
    size = layout_size(extern, n, k, dtype)
    with FakeTensorMode():
        layout = torch.empty(size, dtype=torch.uint8, device="cuda")
        x = torch.empty(m, k, dtype=dtype, device="cuda")
        bias = torch.empty(n, dtype=dtype, device="cuda") if with_bias else None
        y = extern.call(x, layout, bias, n, DEFAULT[extern.name])
    assert y.shape == (m, n)
    assert y.dtype == dtype
    assert y.device.type == "cuda"
    assert y.is_contiguous()


@pytest.mark.parametrize("m", [1, 8, 13])
@pytest.mark.parametrize("shape", [(64, 128), (20, 36)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_what_libraries_are_given(
    m: int, shape: tuple[int, int], with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, k = shape
    packed = pack(n, k)
    x, bias = torch.randn(m, k).half(), torch.randn(n).half() if with_bias else None

    def decoded(values: Tensor, positions: Tensor, other: Tensor) -> Tensor:
        assert other.shape[1] % 8 == 0
        return sparse_semi_structured_to_dense_cutlass(values, positions) @ other

    def biased(bias: Tensor, values: Tensor, positions: Tensor, other: Tensor) -> Tensor:
        return decoded(values, positions, other) + bias[:, None]

    def uncompressed(weight: Tensor, other: Tensor, **options: Any) -> Tensor:
        assert options.pop("transpose_result")
        assert options.pop("alg_id") == 0
        given = options.pop("bias")
        assert not options
        return (weight @ other + (0 if given is None else given[:, None])).t().contiguous()

    monkeypatch.setattr(torch, "_sparse_semi_structured_mm", decoded)
    monkeypatch.setattr(torch, "_sparse_semi_structured_addmm", biased)
    monkeypatch.setattr(torch, "_cslt_sparse_mm", uncompressed)
    monkeypatch.setattr(torch, "_cslt_compress", lambda dense: dense)
    want = F.linear(x, packed.unpack(), bias)
    for extern in EXTERNS:
        schedule = DEFAULT[extern.name]
        given = extern.prepack(packed, schedule, REGISTRY)
        layout = extern.finish(given, packed.shape, packed.dtype)
        got = extern.call(x, layout, bias, n, schedule)
        torch.testing.assert_close(got, want, rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("extern", EXTERNS, ids=lambda e: e.name)
def test_padding_is_counted(extern: PackedExtern) -> None:
    spec = KernelSpec(FORMAT, torch.float16)
    whole, ragged = (
        extern.cost(spec, DEFAULT[extern.name], Contents(pack(*shape)))
        for shape in ((64, 128), (60, 120))
    )
    assert whole.kind == "float16"
    assert whole.computed(1) == whole.computed(8) == 8 * 64 * 128
    assert whole.computed(9) == 2 * whole.computed(8)
    # Eight rows need no copy of x, seven do.
    assert whole.moved(7) > whole.moved(8) > 64 * 128
    assert ragged.computed(8) == (8 * 64 * 128)
    assert ragged.moved(8) > whole.moved(8)


def test_they_are_registered() -> None:
    names = {extern.name for extern in REGISTRY.all(PackedExtern)}
    assert names == {"cutlass", "cusparselt"}
