"""Laws over the registry: every template, its schedules and functions, with any structure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product

import pytest
import torch
from kernel_cases import (
    CODECS,
    DTYPES,
    EPILOGUES,
    STRUCTURES,
    TEMPLATES,
    KernelCase,
    drawn,
    drawn_cases,
    kind,
    stored,
    supports,
)
from torch import Tensor

from sparsecompile.codegen.cpp.epilogues import EXPRESSIONS
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.kernels.epilogue import STEPS
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template

SHAPES = ((80, 192), (37, 101), (5, 7), (1, 1), (0, 9), (9, 0), (0, 0))
ROWS = (0, 1, 2, 3, 5, 8, 9, 17, 33, 70)
SEVERAL_PANELS = 1100
LARGE = (600, 300)
CASES = drawn_cases()
QUICK = len(CASES) // 3
Pack = Callable[..., Packed]
Check = Callable[..., None]


@pytest.fixture
def three_threads() -> Iterator[None]:
    """Threads whose shares of the work differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def functions(kernel: Kernel) -> list[tuple[str, int | None]]:
    """Every function of the kernel's sources, and the last m that it serves."""
    return [function for source in kernel.sources for function in source.kernels]


def check_unpack(kernel: Kernel, packed: Packed) -> None:
    (n, k), layout = packed.shape, kernel.prepack(packed)
    op, op_rows = torch.ops.sparsecompile.unpack, torch.ops.sparsecompile.unpack_rows
    for dtype in dict.fromkeys((packed.dtype, torch.float32)):
        like, want = torch.empty(0, dtype=dtype), packed.unpack(dtype)
        assert same_bits(op(layout, like, n, k, kernel.key), want)
        first, rows = n // 3, n - n // 3 - n // 5
        assert same_bits(op(layout, like, rows, k, kernel.key, first), want[first : first + rows])
        if rows:
            some = torch.tensor([[rows - 1, 0], [rows // 2, 0]])
            got = op_rows(layout, some, like, rows, k, kernel.key, first)
            assert same_bits(got, want[first : first + rows][some])


def same_bits(got: Tensor, want: Tensor) -> bool:
    return torch.equal(got.view(torch.uint8), want.contiguous().view(torch.uint8))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_the_cases_leave_nothing_out(template: Template) -> None:
    own = [case for case in CASES if case.template is template]
    formats = [Format(structure, codec) for structure, codec in product(STRUCTURES, CODECS)]
    served = [f for f in formats if supports(template, KernelSpec(f, DTYPES[0]), Target.host())]
    assert parts_of(case.spec.format for case in own) == parts_of(served)
    for some in (own, [case for case in CASES[:QUICK] if case.template is template]):
        assert {case.spec.dtype for case in some} == set(DTYPES)
    built = {template.layout(case.schedule) for case in own}
    for case in own:
        schedules = template.schedules(case.spec, Target.host())
        assert {template.layout(schedule) for schedule in schedules} <= built


def parts_of(formats: Iterable[Format]) -> set[object]:
    """Structures, codecs, and which kinds of them are together."""
    found = set[object]()
    for fmt in formats:
        found |= {fmt.structure, fmt.codec, (kind(fmt.structure), stored(fmt.codec))}
    return found


def test_every_step_has_an_expression_and_a_case() -> None:
    assert set(EXPRESSIONS) == set(STEPS)
    assert {step for epilogue in EPILOGUES for step in epilogue} == set(STEPS)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("case", drawn(CASES, QUICK))
def test_templates(
    case: KernelCase, build_case: Callable[..., Kernel], pack: Pack, check_linear: Check
) -> None:
    kernel = build_case(case)
    small = [pack(kernel, n, k) for n, k in SHAPES]
    large = pack(kernel, *LARGE)
    for packed in (*small, large):
        check_unpack(kernel, packed)
    for symbol, largest in functions(kernel):
        alone = build_case(case, symbol)
        for i, packed in enumerate(small):
            for j, m in enumerate(ROWS):
                if largest is None or m <= largest:
                    check_linear(alone, packed, (m,), (i + j) % 2 == 0)
        check_linear(alone, large, (largest or SEVERAL_PANELS,), True)
    # All functions together, where one takes over from the next.
    for m in ROWS:
        check_linear(kernel, small[1], (m,), m % 2 == 1)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_layouts_do_not_depend_on_threads(
    template: Template, build_case: Callable[..., Kernel], pack: Pack
) -> None:
    case = next(c for c in CASES if c.template is template)
    kernel = build_case(case)
    packed = pack(kernel, *LARGE)
    before = torch.get_num_threads()
    try:
        layouts = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            layouts.append(kernel.prepack(packed))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(layouts[0], layout) for layout in layouts)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_long_sums_are_as_exact_as_those_of_torch(
    template: Template, build_case: Callable[..., Kernel], pack: Pack, check_linear: Check
) -> None:
    case = next(
        case
        for case in CASES
        if case.template is template
        and case.spec.dtype == torch.float32
        and case.spec.format.codec.lossless
    )
    for symbol, largest in functions(build_case(case)):
        alone = build_case(case, symbol)
        packed = pack(alone, 64, 4096)
        for m in (1, 8, 64):
            if largest is None or m <= largest:
                check_linear(alone, packed, (m,), with_bias=False)
