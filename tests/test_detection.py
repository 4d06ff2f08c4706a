"""What weights were rounded to before they were floats is found, bit for bit, or refused."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packing import Packing
from quantizers import QUANTIZERS, bitnet, gptq
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.formats.packed import Packed


def gaussian(n: int = 48, k: int = 512, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * 0.04


def compressed(weight: Tensor) -> Packed | None:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    sc.compress(linear)
    found = linear.weight.packed if isinstance(linear.weight, sc.PackedTensor) else None
    assert found is None or isinstance(found, Packed)
    return found


def check(weight: Tensor) -> str:
    """The format that is found; it holds every value of the weight."""
    packed = compressed(weight)
    assert packed is not None
    assert packed.exact
    assert torch.equal(packed.unpack(), weight)
    return str(packed.format)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_what_is_found_in_float32(name: str) -> None:
    quantize, codec = QUANTIZERS[name]
    assert check(quantize(gaussian())) == f"dense/{codec}"


@given(
    name=st.sampled_from(sorted(QUANTIZERS)),
    dtype=st.sampled_from((torch.float32, torch.bfloat16, torch.float16)),
    pruned=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_is_found_is_every_value(
    name: str, dtype: torch.dtype, pruned: bool, seed: int
) -> None:
    quantize, codec = QUANTIZERS[name]
    weight = gaussian(8, 256, seed)
    if pruned:
        weight = weight * sc.NM(2, 4).prune(weight)
    weight = quantize(weight).to(dtype)
    if pruned:
        weight = weight * sc.NM(2, 4).prune(weight)
    found = check(weight) if dtype == torch.float32 or pruned else None
    if found is None:
        packed = compressed(weight)
        # Of 8 bits there are weights that bfloat16 has rounded beyond recognition.
        assert packed is not None or (dtype == torch.bfloat16 and "8" in codec)
        assert packed is None or torch.equal(packed.unpack(), weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [6, 7])
def test_many_steps_with_zero_points(bits: int, dtype: torch.dtype) -> None:
    codes = torch.randint(0, 1 << bits, (48, 16, 32))
    codes[..., 0], codes[..., 1] = 0, (1 << bits) - 1
    zeros = torch.randint((1 << bits) // 3, (1 << bits) // 2, (48, 16, 1))
    scales = (torch.rand(48, 16, 1) / 100 + 0.001).half().float()
    weight = ((codes - zeros) * scales).view(48, 512).to(dtype)
    assert check(weight) == f"dense/int{bits}[group=32,scales=float16,zero_points,lossless]"


@pytest.mark.parametrize("name", ["fp8[group=64,scales=float16]", "nf4[group=64,scales=float16]"])
def test_scales_of_few_bits_are_found_as_such(name: str) -> None:
    stored = sc.default_registry().format(f"dense/{name}").pack(gaussian()).unpack()
    assert check(stored) == f"dense/{name.removesuffix(']')},lossless]"


def test_structures_and_codecs_go_together() -> None:
    weight = gptq(gaussian())
    weight = weight * sc.NM(2, 4).prune(weight)
    assert check(weight).startswith("n_m[2:4]/int4[group=64,scales=float16,")
    weight = bitnet(gaussian()) * (torch.rand(48, 512) < 0.1)
    assert check(weight) == "bitmap/ternary[scales=float32,lossless]"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gaussian_weights_are_not_mistaken(dtype: torch.dtype) -> None:
    detectors = sc.default_registry().all(sc.Detector)
    assert {detector.name for detector in detectors} >= {"integers", "codebook"}
    for seed in range(20):
        weight = sc.Occupancy(gaussian(16, 128, seed).to(dtype))
        for detector in detectors:
            with pytest.raises(sc.Reject, match=r"^row 0, column 0 holds|^a row holds"):
                detector.find(weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Q4_1", "row 30, group 3 holds {}, on no grid of 16 steps"),
        ("gptq", ""),
        ("int8", "row 30, column 100 holds {}, on no grid of 256 steps"),
        ("nf4", ""),
        ("fp8", "row 30, column 100 holds {}, no fp8[e5m2,unscaled,lossless]"),
    ],
)
def test_one_value_off_by_one_ulp_is_refused_with_its_place(
    name: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    quantize, _ = QUANTIZERS[name]
    weight = quantize(gaussian(k=128))
    weight[30, 100] = torch.nextafter(weight[30, 100], torch.tensor(9.0))
    with caplog.at_level(logging.INFO, "sparsecompile"):
        packed = compressed(weight)
    if not message:
        # It holds zeros: those are left out of what is stored.
        assert packed is not None
        assert packed.format == sc.default_registry().format("bitmap/float")
        return
    assert packed is None
    assert message.format(f"{float(weight[30, 100]):g}") in caplog.text


def test_one_value_more_than_a_table_has() -> None:
    weight = QUANTIZERS["table"][0](gaussian())
    weight[30, 100] = 0.5
    assert check(weight) == "dense/codebook[lossless]"
    weight[20, :5] = torch.arange(1, 6) / 7
    assert check(weight) == "dense/codebook[bits=8,lossless]"


def test_a_group_of_another_scale_is_no_near_miss() -> None:
    """It has a scale of its own; one of other columns has none."""
    weight = QUANTIZERS["Q4_1"][0](gaussian())
    weight[5, 64:96] *= 2
    assert check(weight) == f"dense/{QUANTIZERS['Q4_1'][1]}"
    weight[5, 64:80] *= 1.1
    assert compressed(weight) is None


def test_small_weights_and_special_values_are_refused() -> None:
    weight = gptq(gaussian())
    weight[0, 3] = float("inf")
    for detector in sc.default_registry().all(sc.Detector):
        with pytest.raises(sc.Reject, match="holds what is not finite"):
            detector.find(sc.Occupancy(weight))
        with pytest.raises(sc.Reject, match="4 rows of 15 columns: 16 columns are needed"):
            detector.find(sc.Occupancy(weight[4:8, :15]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_that_leaves_its_grid_runs_dense(dtype: torch.dtype) -> None:
    """And what it computes before is what the model computes."""
    model = nn.Sequential(nn.Linear(512, 48, dtype=dtype)).requires_grad_(False)
    model[0].weight.data = gptq(gaussian()).to(dtype)
    backend, x = Packing(), torch.randn(3, 512, dtype=dtype)
    fast = torch.compile(model, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x))
        assert backend.packed == ["0.weight"] or len(backend.packed) == 1
        model[0].weight[3, 70] *= 1.01
        assert torch.equal(fast(x), model(x))
        model[0].weight.copy_(gptq(gaussian(seed=1)).to(dtype))
        torch.testing.assert_close(fast(x), model(x))


def test_what_was_found_is_saved_and_loaded(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "model.safetensors"
    model = nn.Sequential(*(nn.Linear(512, 48) for _ in QUANTIZERS)).requires_grad_(False)
    for linear, (quantize, _) in zip(model, QUANTIZERS.values(), strict=True):
        linear.weight.data = quantize(gaussian())
    dense = [linear.weight.clone() for linear in model]
    sc.save(sc.compress(model), path)
    loaded = sc.load(path)
    for i, weight in enumerate(dense):
        found = loaded[f"{i}.weight"]
        assert isinstance(found, sc.PackedTensor)
        assert torch.equal(found.packed.unpack(), weight)  # type: ignore[union-attr]


def test_another_dtype_keeps_codes_where_they_still_fit() -> None:
    model = nn.Sequential(nn.Linear(512, 48)).requires_grad_(False)
    model[0].weight.data = gptq(gaussian())
    dense = model[0].weight.clone()
    sc.compress(model).to(torch.bfloat16)
    weight = model[0].weight
    assert isinstance(weight, sc.PackedTensor)
    assert torch.equal(weight.packed.unpack(), dense.bfloat16())  # type: ignore[union-attr]
    assert str(weight.packed.format).startswith("dense/int4")  # type: ignore[union-attr]
    # Into float32 its values are what bfloat16 made of them, on no grid of float32.
    model.to(torch.float32)
    assert torch.equal(model[0].weight.packed.unpack(), dense.bfloat16().float())  # type: ignore[union-attr]
    assert str(model[0].weight.packed.format) == "dense/float"  # type: ignore[union-attr]


def test_nothing_is_looked_for_if_that_is_not_wanted() -> None:
    quantize, codec = QUANTIZERS["Q4_0"]
    linear = nn.Linear(512, 48, bias=False)
    linear.weight = nn.Parameter(quantize(gaussian()), requires_grad=False)
    for detect in (True, False):
        torch._dynamo.reset()
        packing = Packing(detect=detect)
        with torch.no_grad():
            torch.compile(linear, backend=packing)(torch.randn(1, 512))
        (node,) = packing.compiler.report.nodes
        assert (node.format == f"dense/{codec}") == detect
        assert any(str(codec) in finding.format for finding in node.findings) == detect
    with pytest.raises(sc.OptionError, match="'detect' must be True or False"):
        sc.Compiler(detect=0)
    sc.compress(linear, detect=False)
    assert isinstance(linear.weight, sc.PackedTensor)  # of its zeros
    assert "int4" not in str(linear.weight.packed)
