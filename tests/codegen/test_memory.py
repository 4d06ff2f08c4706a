"""Memory of layouts: where it begins, and systems that have no huge pages."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from kernel_cases import TEMPLATES, drawn_cases

from sparsecompile.codegen.cpp import memory
from sparsecompile.codegen.cpp.layout import layout_id
from sparsecompile.codegen.cpp.memory import ALIGNMENT, HUGE_PAGE, allocate
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels import ops
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.template import Template


@pytest.fixture(autouse=True)
def _look_again() -> Iterator[None]:
    """What was found in the C library is kept: not what a test puts there."""
    memory._madvise.cache_clear()
    yield
    memory._madvise.cache_clear()


@pytest.mark.parametrize("nbytes", [0, 1, 128, 4096, HUGE_PAGE - 1])
def test_small_layouts_begin_at_multiples_of_64(nbytes: int) -> None:
    layout = allocate(nbytes)
    assert layout.dtype == torch.uint8
    assert layout.shape == (nbytes,)
    assert nbytes == 0 or layout.data_ptr() % ALIGNMENT == 0


@pytest.mark.parametrize("nbytes", [HUGE_PAGE, HUGE_PAGE + 1, 3 * HUGE_PAGE + 5])
def test_large_layouts_begin_at_huge_pages_and_ask_for_them(
    nbytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(memory, "_madvise", lambda: lambda *call: asked.append(call))
    layout = allocate(nbytes)
    assert layout.shape == (nbytes,)
    assert layout.data_ptr() % HUGE_PAGE == 0
    if hasattr(mmap, "MADV_HUGEPAGE"):
        whole = nbytes // HUGE_PAGE * HUGE_PAGE
        assert asked == [(layout.data_ptr(), whole, mmap.MADV_HUGEPAGE)]


def test_systems_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(memory, "_madvise", lambda: None)
        allocate(HUGE_PAGE).zero_()
    with monkeypatch.context() as patch:
        patch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
        patch.setattr(memory, "_madvise", lambda: pytest.fail("nothing to ask for"))
        allocate(HUGE_PAGE).zero_()
    with monkeypatch.context() as patch:
        patch.setattr(memory.ctypes, "CDLL", lambda name: object())
        allocate(HUGE_PAGE).zero_()


def test_a_refusal_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_madvise", lambda: lambda *call: -1)
    assert allocate(HUGE_PAGE).zero_().sum() == 0


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("always [madvise] never\n", "madvise"),
        ("[always] madvise never\n", "always"),
        ("always madvise [never]\n", "never"),
        ("", "never"),
        (None, "never"),
    ],
)
def test_when_the_system_gives_huge_pages(
    text: str | None, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "enabled"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(memory, "HUGE_PAGES", file)
    assert memory.huge_pages() == mode


def test_memory_nodes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "NODES", tmp_path / "none")
    assert memory.memory_nodes() == 1
    for name in ("node0", "node1", "node12", "online", "nodes"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(memory, "NODES", tmp_path)
    assert memory.memory_nodes() == 3


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_layouts_have_the_header_that_kernels_read(
    template: Template, build_case: Callable[..., Kernel], pack: Callable[..., Packed]
) -> None:
    """Also where a kernel makes its own layout out of the canonical one."""
    own = (case for case in drawn_cases() if case.template is template)
    # Of blocks that stick out, lists have fewer slots.
    case = next(case for case in own if case.spec.format.structure.family == "bitmap")
    kernel = build_case(case)
    assert (kernel.relayout is not None) == kernel.sources[0].prepacks
    for n, k in ((37, 101), (0, 8), (8, 0), (1100, 1030)):
        packed = pack(kernel, n, k)
        layout = kernel.prepack(packed)
        assert layout.data_ptr() % (HUGE_PAGE if layout.numel() >= HUGE_PAGE else ALIGNMENT) == 0
        header = layout[: ops.HEADER_BYTES].view(torch.int64).tolist()
        name = template.layout(case.schedule)
        assert header[0] == layout_id(name, case.spec.format, case.spec.dtype)
        assert header[1:5] == [n, k, packed.slots, layout.numel()]
        offsets = header[6 : 6 + header[5]]
        assert offsets == sorted(offsets)
        assert all(ops.HEADER_BYTES <= offset <= layout.numel() for offset in offsets)
        # Every byte is written: what is packed twice is the same.
        assert torch.equal(layout, kernel.prepack(packed))
