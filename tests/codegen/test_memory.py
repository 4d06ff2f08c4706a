"""Memory of layouts: where it begins, and systems that have no huge pages."""

from __future__ import annotations

import copy
import errno
import gc
import mmap
import weakref
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from kernel_cases import TEMPLATES, drawn_cases

from sparsecompile.codegen.cpp import memory
from sparsecompile.codegen.cpp.layout import layout_id
from sparsecompile.codegen.cpp.memory import ALIGNMENT, HUGE_PAGE, SHARED, allocate
from sparsecompile.errors import SparseCompileError
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels import ops
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.template import Template


@pytest.fixture(autouse=True)
def _nothing_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layouts of a test lie in memory of its own."""
    monkeypatch.setattr(memory, "_shared", None)


@pytest.mark.parametrize("nbytes", [0, 1, 128, 4096, HUGE_PAGE - 1])
@pytest.mark.parametrize("stays", [False, True])
def test_small_layouts_begin_at_multiples_of_64(nbytes: int, stays: bool) -> None:
    layout = allocate(nbytes, stays=stays)
    assert layout.dtype == torch.uint8
    assert layout.shape == (nbytes,)
    assert not layout.any()
    assert nbytes == 0 or layout.data_ptr() % ALIGNMENT == 0


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE


def test_small_layouts_lie_side_by_side_in_storages_of_their_own() -> None:
    first, second = allocate(100, stays=True), allocate(1 << 20, stays=True)
    assert first.data_ptr() % HUGE_PAGE == 0
    assert second.data_ptr() == first.data_ptr() + 128
    second.fill_(7)
    assert not first.any()
    for layout in (first, second):
        assert layout.untyped_storage().nbytes() == layout.numel()
    assert torch.equal(copy.deepcopy(second), second)


def test_memory_is_freed_with_the_last_layout_in_it() -> None:
    layouts = [allocate(HUGE_PAGE - 64, stays=True) for _ in range(SHARED // HUGE_PAGE + 1)]
    region = weakref.ref(memory._shared.memory if memory._shared else None)
    before = resident()
    for layout in layouts:
        layout.fill_(1)
    assert resident() - before > 0.9 * SHARED
    del layout, layouts
    memory._shared = None
    gc.collect()
    assert region() is None
    assert resident() - before < 0.2 * SHARED


def test_what_does_not_fit_the_rest_begins_anew() -> None:
    first = allocate(64, stays=True)
    layouts = [allocate(HUGE_PAGE - 64, stays=True) for _ in range(SHARED // HUGE_PAGE + 2)]
    assert first.data_ptr() % HUGE_PAGE == 0
    steps = [b.data_ptr() - a.data_ptr() for a, b in pairwise(layouts)]
    others = [step for step in steps if step != HUGE_PAGE - 64]
    assert len(others) == 1
    newest = layouts[1 + steps.index(others[0])]
    assert newest.data_ptr() % HUGE_PAGE == 0


@pytest.mark.parametrize("nbytes", [HUGE_PAGE, HUGE_PAGE + 1, 3 * HUGE_PAGE + 5])
def test_large_layouts_begin_at_huge_pages(nbytes: int) -> None:
    layout = allocate(nbytes)
    assert layout.shape == (nbytes,)
    assert layout.data_ptr() % HUGE_PAGE == 0
    assert memory._shared is None


def test_huge_pages_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Asked(mmap.mmap):
        def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
            asked.append(option)

    monkeypatch.setattr(mmap, "mmap", Asked)
    allocate(HUGE_PAGE)
    allocate(100)
    allocate(100, stays=True)
    allocate(100, stays=True)
    expected = [mmap.MADV_HUGEPAGE] if hasattr(mmap, "MADV_HUGEPAGE") else []
    assert asked == 2 * expected


def test_systems_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuses(mmap.mmap):
        def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
            raise OSError(errno.EINVAL, "no huge pages")

    monkeypatch.setattr(mmap, "mmap", Refuses)
    assert not allocate(HUGE_PAGE).any()
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    monkeypatch.setattr(Refuses, "madvise", lambda *call: pytest.fail("nothing to ask for"))
    assert not allocate(HUGE_PAGE).any()


def test_too_little_memory_is_said() -> None:
    with pytest.raises(SparseCompileError, match=r"needs 2,305,843,009,213,693,952 bytes and the"):
        allocate(1 << 61)


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
