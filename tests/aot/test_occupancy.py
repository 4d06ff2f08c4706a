"""Occupancy and bounds, against figures worked out by hand."""

from __future__ import annotations

import pytest

from sparsecompile.bench.aot.bound import bounds
from sparsecompile.codegen.triton.inspection.architecture import ARCHITECTURES, architecture
from sparsecompile.codegen.triton.inspection.occupancy import occupancy
from sparsecompile.errors import OptionError
from sparsecompile.formats.symbols import m
from sparsecompile.kernels.cost import Cost
from sparsecompile.kernels.target import Target


@pytest.mark.parametrize(
    ("name", "registers", "shared", "warps", "blocks", "limiter"),
    [
        # 128 registers x 32 threads are 4096 of 65536: 16 warps.
        ("sm_80", 128, 0, 4, 4, "registers"),
        # 118 are given as 120: 3840 of each scheduler's 16384 are 4 warps.
        ("sm_90", 118, 0, 4, 4, "registers"),
        ("sm_80", 32, 0, 4, 16, "warps"),
        ("sm_86", 32, 0, 4, 12, "warps"),
        ("sm_80", 16, 0, 1, 32, "blocks"),
        ("sm_89", 16, 0, 1, 24, "blocks"),
        # 40 KiB and the system's 1 KiB, of 164.
        ("sm_80", 32, 40 * 1024, 4, 4, "shared memory"),
        ("sm_90", 32, 227 * 1024, 4, 1, "shared memory"),
        ("sm_86", 32, 100 * 1024, 4, 0, "shared memory"),
        # 101 are given as 104: 4 waves on each of 4 SIMDs.
        ("gfx942", 101, 0, 4, 4, "registers"),
        ("gfx942", 64, 0, 4, 8, "registers"),
        ("gfx942", 16, 64 * 1024, 4, 1, "shared memory"),
        ("sm_90", 256, 0, 1, 0, "registers"),
    ],
)
def test_occupancy(
    name: str, registers: int, shared: int, warps: int, blocks: int, limiter: str
) -> None:
    found = occupancy(architecture(name), registers, shared, warps)
    assert found.blocks == blocks
    assert found.limiter == limiter or found.limits[limiter] == blocks
    assert found.share == blocks * warps / architecture(name).warps


def test_unknown_target() -> None:
    with pytest.raises(
        OptionError, match="nothing can be compiled for 'sm_75'; known: sm_80, sm_86,"
    ):
        architecture("sm_75")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name: str) -> None:
    found = architecture(name)
    assert found.name == name
    assert found.block_shared <= found.shared
    assert found.gpu.arch == name
    assert Target.parse(name).gpu is found.gpu


def test_bounds() -> None:
    h100 = architecture("sm_90").gpu
    dense = Cost(2 * 4096 * 4096 + 2 * m * 8192, 2 * m * 4096 * 4096, "float16")
    half = Cost(4096 * 4096 + 2 * m * 8192, 2 * m * 4096 * 4096, "float16")
    few, many = bounds(half, dense, h100, (1, 4096))
    assert few.limiter == "memory"
    assert few.seconds == (4096 * 4096 + 2 * 8192) / h100.bandwidth
    assert few.dense_seconds == (2 * 4096 * 4096 + 2 * 8192) / h100.bandwidth
    assert few.speedup == pytest.approx(2, rel=1e-2)
    assert many.limiter == "arithmetic"
    assert many.speedup == 1


def test_dense_against_itself() -> None:
    cost = Cost(2 * 64 * 128 + 2 * m * 192, 2 * m * 64 * 128, "bfloat16")
    for bound in bounds(cost, cost, architecture("gfx942").gpu):
        assert bound.speedup == 1
