"""Sources of attention under the sanitizers: no access outside of what they are given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from attention_cases import HOST, WAKES, AttentionCase, cases
from kernel_cases import covering
from sanitized import run_sanitized

from sparsecompile.codegen.cpp.attention.template import FlashAttention
from sparsecompile.kernels.target import Target
from sparsecompile.masks.block_mask import BlockMask
from sparsecompile.registry import default_registry

DRIVER = Path(__file__).parent / "memory_driver.cpp"
SIZES = ((1, 1), (1, 70), (3, 33), (16, 130), (17, 5), (64, 64), (70, 131))


def facts(case: AttentionCase) -> Iterator[tuple[str, object]]:
    """At each level every dtype, and every rest of columns that fills no vector."""
    spec = case.spec
    rests = ("q", spec.head_dim % 16), ("v", spec.value_dim % 16)
    yield from ((case.isa, part) for part in (spec.dtype, *rests, spec.softcap))


def masks() -> Iterator[BlockMask]:
    """Sparse ones, and such that end where the last key does; those with a bias at times."""
    for place, (q, kv) in enumerate(SIZES):
        mask = torch.rand(1, 1, q, kv) < 0.1
        mask[..., -1:] = True
        yield replace(BlockMask.of(mask), is_biased=place % 2 == 1)


@pytest.mark.slow
@pytest.mark.parametrize("case", covering(cases(), facts), ids=str)
def test_nothing_is_read_or_written_outside(case: AttentionCase, tmp_path: Path) -> None:
    target = Target(HOST.device, HOST.arch, case.isa)
    source = FlashAttention().render(case.spec, WAKES, target, default_registry())
    files = []
    for place, mask in enumerate(masks()):
        files.append(tmp_path / str(place))
        files[-1].write_bytes(mask.layout().numpy().tobytes())
    text = "\n".join((source.text, DRIVER.read_text(encoding="utf-8")))
    run_sanitized(text, target, tmp_path, files)
