"""Generated sources under the sanitizers: no access outside of what they are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kernel_cases import KernelCase, drawn_cases
from sanitized import run_sanitized

from sparsecompile.codegen.cpp import text
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source
from sparsecompile.registry import Registry, default_registry

DRIVER = Path(__file__).parent / "memory_driver.cpp"
SHAPES = ((80, 192), (37, 101), (16, 16), (5, 7), (1, 1), (3, 0), (0, 3), (130, 300))
INPUTS = (0.0, 1.0, -0.5, 3.0)


def one_of_each_kind() -> list[KernelCase]:
    """Of every template one case for each schedule, set of loops, and family of its parts."""
    chosen: dict[tuple[str, str], KernelCase] = {}
    for case in drawn_cases():
        parts = (case.spec.format.structure.family, case.spec.format.codec.family)
        kinds = (*parts, case.schedule.tag, loops(case))
        if any((case.template.name, kind) not in chosen for kind in kinds):
            chosen |= {(case.template.name, kind): case for kind in kinds}
    return list(dict.fromkeys(chosen.values()))


def loops(case: KernelCase) -> str:
    """The files of loops in a case's source."""
    source = case.template.render(case.spec, case.schedule, Target.host(), default_registry())
    folder = Path(text.__file__).parent
    names = (str(file.relative_to(folder)) for file in folder.rglob("*.h"))
    return " ".join(sorted(name for name in names if text.read(name) in source.text))


def driver(source: Source, case: KernelCase) -> str:
    """The source, what the driver has to know about it, and the driver."""
    integer = {2: torch.int16, 4: torch.int32}[case.spec.dtype.itemsize]
    numbers = torch.tensor((*INPUTS, float("inf"))).to(case.spec.dtype).view(integer).tolist()
    bits = 8 * case.spec.dtype.itemsize
    *inputs, infinity = (str(number % 2**bits) for number in numbers)
    functions = (f"{{{symbol}, {largest or 0}}}" for symbol, largest in source.kernels)
    macros = {
        "SC_ELEMENT": f"uint{bits}_t",
        "SC_INFINITY": infinity,
        "SC_INPUTS": ", ".join(inputs),
        "SC_FUNCTIONS": ", ".join(functions),
        "SC_PREPACKS": int(source.prepacks),
        "SC_OPERANDS": case.spec.operands,
    }
    defines = "\n".join(f"#define {name} {value}" for name, value in macros.items())
    return "\n".join((source.text, defines, DRIVER.read_text(encoding="utf-8")))


@pytest.mark.slow
@pytest.mark.parametrize("case", one_of_each_kind(), ids=str)
def test_nothing_is_read_or_written_outside(
    case: KernelCase,
    registry: Registry,
    pack_spec: Callable[..., Packed],
    tmp_path: Path,
) -> None:
    source = case.template.render(case.spec, case.schedule, Target.host(), registry)
    layouts = []
    for n, k in SHAPES:
        layouts.append(tmp_path / f"{n}x{k}")
        layout = case.template.prepack(pack_spec(case.spec, n, k), case.schedule, registry)
        layouts[-1].write_bytes(layout.numpy().tobytes())
    run_sanitized(driver(source, case), Target.host(), tmp_path, layouts)
