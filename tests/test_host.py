"""The instruction set level of the CPU, from the features that the system lists."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparsecompile.kernels import target
from sparsecompile.kernels.target import ISA_LEVELS, Target, isa_at_least

LEVELS = list(ISA_LEVELS)


def features(*levels: str) -> list[str]:
    return sorted(feature for level in levels for feature in ISA_LEVELS[level])


def host_isa(monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None) -> str:
    """The level found where `/proc/cpuinfo` says this, or is missing."""
    real = Path.read_text

    def read_text(path: Path, *args: str, **keywords: str) -> str:
        if path != Path("/proc/cpuinfo"):
            return real(path, *args, **keywords)
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return cpuinfo

    monkeypatch.setattr(Path, "read_text", read_text)
    return target._host_isa.__wrapped__()


def cpuinfo(flags: list[str]) -> str:
    other = "processor\t: 1\nflags\t\t: another core\n"
    return f"processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu {' '.join(flags)} sse2\n{other}"


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_needs_all_of_its_features(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = LEVELS[: LEVELS.index(level)]
    have = features(*before, level)
    assert host_isa(monkeypatch, cpuinfo(have)) == level
    for missing in ISA_LEVELS[level]:
        rest = [feature for feature in have if feature != missing]
        assert host_isa(monkeypatch, cpuinfo(rest)) == before[-1]


def test_a_level_needs_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_isa(monkeypatch, cpuinfo(features("avx2", "amx"))) == "avx2"
    assert host_isa(monkeypatch, cpuinfo(features("avx512", "avx512_bf16"))) == "portable"


def test_a_cpu_without_flags_is_portable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_isa(monkeypatch, "processor\t: 0\nFeatures\t: neon\n") == "portable"


@pytest.mark.parametrize(
    ("capability", "level"), [("AVX2", "avx2"), ("AVX512", "avx512"), ("DEFAULT", "portable")]
)
def test_without_a_list_torch_is_asked(
    capability: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert host_isa(monkeypatch, None) == level


def test_levels_include_those_before_them() -> None:
    for i, level in enumerate(LEVELS):
        assert [isa_at_least(level, other) for other in LEVELS] == [
            j <= i for j in range(len(LEVELS))
        ]


def test_the_host_is_a_cpu_with_a_known_level() -> None:
    host = Target.host()
    assert host.device == "cpu"
    assert host.isa in ISA_LEVELS
    assert str(host) == f"cpu {host.arch} {host.isa}"
