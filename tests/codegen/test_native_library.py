"""The native library: when it is loaded, and that a process has one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import sparsecompile
from sparsecompile.codegen.cpp import lower, native
from sparsecompile.codegen.cpp.freshness import load_freshness
from sparsecompile.codegen.cpp.generic import GenericLinear
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.errors import BuildError, SparseCompileError
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels import ops
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry

N, K = 24, 40


def test_loading_begins_in_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    came = threading.Event()

    def load() -> None:
        came.set()
        assert threading.current_thread() is not threading.main_thread()
        raise BuildError("no compiler")

    expected: list[object] = []
    monkeypatch.setattr(native, "load_native", load)
    monkeypatch.setattr(native, "expect", expected.append)
    native.start_loading.__wrapped__()
    assert came.wait(10)
    assert expected == [load_freshness]


def test_what_looks_at_tensors_is_there_before_the_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[str] = []
    load = native._library
    monkeypatch.setattr(native, "load_freshness", lambda: came.append("freshness"))
    monkeypatch.setattr(native, "_library", lambda: came.append("ops") or load())
    native._load.__wrapped__()
    assert came == ["freshness", "ops"]


def test_loading_begins_with_the_first_packed_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(lower, "start_loading", lambda: calls.append("start"))
    linear = torch.nn.Linear(K, N).requires_grad_(False)
    sparsecompile.explain(linear, torch.randn(2, K))
    assert not calls
    sparsecompile.explain(linear, torch.randn(2, K), prune="2:4", tune="off")
    assert calls == ["start"]


def test_one_copy_of_the_library_has_all_kernels(
    build: Callable[..., Kernel],
    pack: Callable[..., Packed],
    registry: Registry,
    cache_folder: Path,
) -> None:
    """Wherever kernels are built, and whoever asks for the library again."""
    native.load_native()
    native._load.__wrapped__()
    spec = KernelSpec(registry.format("n_m[2:4]"), torch.float32, ("relu", "tanh"))
    template, target = GenericLinear(), Target.host()
    (schedule, *_) = template.schedules(spec, target)
    kernel = CppCodegen().build(spec, template, schedule, target, registry)
    packed = pack(kernel, N, K)
    x = torch.randn(2, K)
    found = ops.linear(x, kernel.prepack(packed), None, (), N, kernel.key)
    torch.testing.assert_close(found, F.linear(x, packed.unpack()).relu().tanh())
    assert not list(cache_folder.glob("native-*"))


def test_a_second_copy_is_refused(cache_folder: Path) -> None:
    native.load_native()
    with pytest.raises(
        SparseCompileError, match=r"is in this process already, .*Import sparsecomp"
    ):
        native._library.__wrapped__()
    assert not cache_folder.exists()
