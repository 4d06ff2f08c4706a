"""Targets: GPUs by name, the one that a model is on, and what cannot be a target."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import sparsecompile as sc
from sparsecompile.errors import Reject
from sparsecompile.kernels.gpu import GPUS
from sparsecompile.kernels.target import Target
from sparsecompile.options.resolve import gpu_of, select_target


def test_gpus_have_names() -> None:
    for arch, gpu in GPUS.items():
        target = Target.parse(arch)
        assert (target.device, target.gpu, str(target)) == ("cuda", gpu, f"cuda {arch}")
        assert set(gpu.rates) == {"float32", "float16", "bfloat16", "int8"}
        assert gpu.warp_size == (32 if gpu.vendor == "nvidia" else 64)
    assert Target.parse("sm_90").gpu.capability == (9, 0)
    assert Target.parse("sm_100").gpu.capability == (10, 0)
    assert Target.parse("gfx942").gpu.capability == (0, 0)


def test_what_is_no_gpu() -> None:
    with pytest.raises(ValueError, match="no GPU architecture 'sm_33'; known: sm_75, sm_80"):
        Target.parse("sm_33")
    with pytest.raises(Reject, match="a GPU is needed, the target is cpu"):
        _ = Target.host().gpu


def test_the_option_names_a_target_or_leaves_it_to_the_model() -> None:
    assert select_target(sc.Options()) is None
    assert select_target(sc.Options(target="cpu")) == Target.host()
    assert select_target(sc.Options(target="sm_89")) == Target.parse("sm_89")
    with pytest.raises(sc.OptionError, match=r"no target 'sm_33' .* known: 'auto', 'cpu', .*942'"):
        select_target(sc.Options(target="sm_33"))


def test_a_model_s_gpu_is_that_of_its_parameters() -> None:
    layer = torch.nn.Linear(4, 4)
    assert gpu_of([torch.empty(2, device="meta"), layer.weight, 3]) is None


def properties(major: int, minor: int, arch: str = "") -> SimpleNamespace:
    return SimpleNamespace(major=major, minor=minor, gcnArchName=arch, name="Some GPU")


@pytest.mark.parametrize(
    ("found", "hip", "arch"),
    [
        (properties(9, 0), None, "sm_90"),
        (properties(8, 7), None, "sm_86"),
        (properties(12, 0), None, "sm_100"),
        (properties(9, 4, "gfx942:sramecc+:xnack-"), "6.4", "gfx942"),
    ],
)
def test_the_target_of_a_gpu(
    found: SimpleNamespace, hip: str | None, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert Target.of_gpu(torch.device("cuda:0")) == Target.parse(arch)


@pytest.mark.parametrize(
    ("found", "hip"), [(properties(7, 0), None), (properties(9, 0, "gfx900"), "6.4")]
)
def test_gpus_that_nothing_is_known_of(
    found: SimpleNamespace, hip: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.version, "hip", hip)
    with pytest.raises(Reject, match="Some GPU is of no known architecture: sm_75"):
        Target.of_gpu(torch.device("cuda:0"))


def test_no_gpu_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Reject, match="there is no GPU for cuda:1 on this machine; name the arch"):
        Target.of_gpu(torch.device("cuda:1"))
