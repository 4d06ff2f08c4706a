"""Sources of attention under the sanitizers: no access outside of what they are given."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from attention_cases import HOST, WAKES, AttentionCase, cases

from sparsecompile.codegen.cpp.attention.template import FlashAttention
from sparsecompile.codegen.cpp.compiler import find_compiler
from sparsecompile.kernels.target import Target
from sparsecompile.masks.block_mask import BlockMask
from sparsecompile.registry import default_registry

DRIVER = Path(__file__).parent / "memory_driver.cpp"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1")
SIZES = ((1, 1), (1, 70), (3, 33), (16, 130), (17, 5), (64, 64), (70, 131))


def masks() -> bytes:
    """Sparse ones, and such that end where the last key does; those with a bias at times."""
    layouts = []
    for place, (q, kv) in enumerate(SIZES):
        mask = torch.rand(1, 1, q, kv) < 0.1
        mask[..., -1:] = True
        layouts.append(replace(BlockMask.of(mask), is_biased=place % 2 == 1).layout())
    return b"".join(layout.numpy().tobytes() for layout in layouts)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=str)
def test_nothing_is_read_or_written_outside(case: AttentionCase, tmp_path: Path) -> None:
    compiler, target = find_compiler(), Target(HOST.device, HOST.arch, case.isa)
    main, program, file = (tmp_path / name for name in ("driver.cpp", "driver", "masks"))
    source = FlashAttention().render(case.spec, WAKES, target, default_registry())
    main.write_text("\n".join((source.text, DRIVER.read_text(encoding="utf-8"))), encoding="utf-8")
    file.write_bytes(masks())
    flags = [flag for flag in compiler.flags(target) if flag not in ("-shared", "-O2")]
    words = [*compiler.command, str(main), "-o", str(program), *flags, "-O1", *SANITIZERS]
    built = subprocess.run(words, capture_output=True, text=True, check=False)
    if built.returncode and "cannot find -lasan" in built.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([program, file], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
