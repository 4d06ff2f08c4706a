"""What the compilers make of kernels whose machine code is known."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aot_kernels
import pytest

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.triton.inspection import analyse as module
from sparsecompile.codegen.triton.inspection.analyse import analyse
from sparsecompile.codegen.triton.inspection.analysis import Analysis
from sparsecompile.codegen.triton.inspection.architecture import ARCHITECTURES, architecture
from sparsecompile.codegen.triton.inspection.prune import prune
from sparsecompile.errors import BuildError, OptionError


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> list[str]:
    """Names of the kernels that are compiled from now on; nothing is known yet."""
    names: list[str] = []
    whole = module.compile_for

    def count(what, where):
        names.append(what.name)
        return whole(what, where)

    monkeypatch.setattr(module, "compile_for", count)
    return names


@pytest.mark.parametrize("target", ARCHITECTURES)
def test_matmul(target: str) -> None:
    found = analyse(aot_kernels.matmul(), target)
    assert found.faults == ()
    assert found.unit == architecture(target).matrix[0]
    assert found.spills == found.stack == 0
    assert found.dots == ("f16",)
    (loop,) = found.loops
    assert 0 < sum(loop.matrix.values()) <= sum(found.matrix.values())
    weight, activations = loop.loads
    assert weight.text.startswith("weight = tl.load(")
    assert weight.bits == 128
    # 64 x 64 weights of 16 bits are 512 times 128 bits.
    threads = found.warps * architecture(target).gpu.warp_size
    assert weight.count * threads == 512
    assert activations.text.startswith("activations = tl.load(")
    assert weight.is_asynchronous == activations.is_asynchronous == target.startswith("sm_")
    assert found.occupancy.blocks > 0


@pytest.mark.parametrize(
    ("target", "name"), [("sm_80", "IMMA"), ("sm_90", "IGMMA"), ("gfx942", "v_mfma_i32")]
)
def test_int8(target: str, name: str) -> None:
    found = analyse(aot_kernels.matmul(dtype="i8"), target)
    assert found.dots == ("i8",)
    assert found.faults == ()
    assert all(instruction.startswith(name) for instruction in found.matrix)
    assert found.matrix


def test_exact_float32_is_not_for_matrix_units() -> None:
    found = analyse(aot_kernels.matmul(dtype="fp32"), "sm_80")
    assert found.unit is None
    assert found.dots == ("f32",)
    assert found.faults == ()


def test_rounded_float32_is() -> None:
    found = analyse(aot_kernels.matmul(dtype="fp32", precision="tf32"), "sm_80")
    assert found.unit == "mma.sync"


def test_gemv() -> None:
    found = analyse(aot_kernels.gemv(), "sm_80")
    assert found.unit is None
    assert found.dots == ()
    (loop,) = found.loops
    assert {load.bits for load in loop.loads if "weight" in load.text} == {128}
    loose = analyse(aot_kernels.gemv(divisible=False), "sm_80")
    (loop,) = loose.loops
    assert {load.bits for load in loop.loads if "weight" in load.text} == {16}


def test_spills() -> None:
    found = analyse(aot_kernels.spilling(), "sm_80")
    assert found.spills > 100
    assert found.stack > 0
    (fault,) = found.faults
    assert fault == (
        f"{found.spills} spills, {found.stack} bytes of local memory a thread "
        f"({found.registers} registers)"
    )


@pytest.mark.parametrize(("target", "most"), [("sm_80", 163 * 1024), ("gfx942", 65536)])
def test_too_much_shared_memory(target: str, most: int) -> None:
    facts = analyse(aot_kernels.matmul(), target).to_dict()
    del facts["faults"]
    assert Analysis.of({**facts, "shared": most}).faults == ()
    (fault,) = Analysis.of({**facts, "shared": most + 1}).faults
    assert fault == f"{most + 1} bytes of shared memory, a block has {most}"


def test_a_product_off_the_matrix_units() -> None:
    found = analyse(aot_kernels.matmul(), "sm_80")
    facts = found.to_dict()
    del facts["faults"]
    assert Analysis.of(facts) == found
    assert Analysis.of({**facts, "unit": None}).faults == (
        "a product of f16 without matrix instructions",
    )


def test_no_block_fits() -> None:
    facts = analyse(aot_kernels.matmul(), "sm_80").to_dict()
    del facts["faults"]
    facts["occupancy"] = {**facts["occupancy"], "blocks": 0, "limiter": "warps"}
    assert Analysis.of(facts).faults == ("no block fits: warps",)


def test_json() -> None:
    found = analyse(aot_kernels.matmul(), "sm_90").to_dict()
    assert json.loads(json.dumps(found))["unit"] == "wgmma"
    assert found["faults"] == []


def test_compiled_once(compiled: list[str]) -> None:
    first = analyse(aot_kernels.gemv(), "sm_80")
    assert analyse(aot_kernels.gemv(), "sm_80") == first
    assert compiled == ["_gemv"]
    analyse(aot_kernels.gemv(), "sm_86")
    analyse(aot_kernels.gemv(divisible=False), "sm_80")
    assert len(compiled) == 3


def test_one_of_several_compiles(compiled: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: analyse(aot_kernels.gemv(), "sm_80"), range(4)))
    assert compiled == ["_gemv"]
    assert found == [found[0]] * 4


def test_a_damaged_entry_is_made_anew(compiled: list[str], cache_folder: Path) -> None:
    first = analyse(aot_kernels.gemv(), "sm_80")
    (entry,) = cache_folder.glob("aot-*.json")
    entry.write_bytes(entry.read_bytes()[:40])
    assert analyse(aot_kernels.gemv(), "sm_80") == first
    assert len(compiled) == 2
    assert Cache().read(entry.name) is not None


def test_unknown_target() -> None:
    with pytest.raises(OptionError, match="nothing can be compiled for 'sm_42'"):
        analyse(aot_kernels.gemv(), "sm_42")


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = aot_kernels.gemv()
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(BuildError, match=r"Triton is not installed.*pip install triton"):
        analyse(kernel, "sm_80")
    with pytest.raises(BuildError, match="Triton is not installed"):
        prune({"only": [kernel]}, "sm_80")


def test_what_triton_cannot_compile(cache_folder: Path) -> None:
    kernel = aot_kernels.matmul(depth=48)
    with pytest.raises(BuildError, match="cannot compile _matmul for sm_80") as caught:
        analyse(kernel, "sm_80")
    assert caught.value.source == Path(aot_kernels.__file__)
    assert "power of 2" in caught.value.stderr


@pytest.mark.parametrize("problem", ["exits", "silent"])
def test_tools_that_fail(
    problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    tool = tmp_path / "nvdisasm"
    version = 'if [ "$1" = --version ]; then echo "release 13.1, V13.1.80"; exit 0; fi\n'
    rest = "echo broken >&2; exit 3\n" if problem == "exits" else "exit 0\n"
    tool.write_text(f"#!/bin/sh\n{version}{rest}", encoding="ascii")
    tool.chmod(0o700)
    monkeypatch.setenv("TRITON_NVDISASM_PATH", str(tool))
    said = "exit status 3; it comes with Triton's wheel" if problem == "exits" else "not understood"
    with pytest.raises(BuildError, match=said):
        analyse(aot_kernels.gemv(), "sm_80")


def test_a_tool_that_is_missing(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    from triton import knobs

    monkeypatch.setattr(vars(type(knobs.nvidia))["nvdisasm"], "default_path", "/nowhere")
    with pytest.raises(BuildError, match="there is no nvdisasm; it comes with Triton's wheel"):
        analyse(aot_kernels.gemv(), "sm_80")


def test_prune() -> None:
    candidates = {
        "good": [aot_kernels.gemv(), aot_kernels.matmul()],
        "spilling": [aot_kernels.matmul(), aot_kernels.spilling()],
        "wrong": [aot_kernels.matmul(depth=48)],
    }
    found = prune(candidates, "sm_80")
    assert found.kept == ("good",)
    assert set(found.dropped) == {"spilling", "wrong"}
    assert found.dropped["spilling"].startswith("_matmul on sm_80: ")
    assert "bytes of local memory" in found.dropped["spilling"]
    assert found.dropped["wrong"].startswith("_matmul on sm_80: does not compile: ")
    assert os.linesep not in found.dropped["wrong"]
