"""Where Triton keeps what it compiles of ours, and of others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aot_kernels
import pytest
from triton import compile as compile_function
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.cache import FileCacheManager

from sparsecompile.codegen.triton.inspection.architecture import architecture
from sparsecompile.codegen.triton.inspection.specialization import compile_for

SM_80 = architecture("sm_80")


@pytest.fixture(autouse=True)
def their_folder(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Where Triton's own cache is; nothing has taken the place of its manager yet."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "theirs"))
    monkeypatch.delitem(vars(knobs.cache), "manager_class", raising=False)
    yield tmp_path / "theirs"
    vars(knobs.cache).pop("manager_class", None)


@pytest.fixture
def hits(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each compilation whether it was found."""
    found: list[bool] = []
    monkeypatch.setattr(
        knobs.compilation, "listener", lambda *, cache_hit, **_: found.append(cache_hit)
    )
    return found


def compile_theirs() -> Any:
    """A kernel that is somebody else's."""
    kernel = aot_kernels.gemv()
    names = kernel.function.arg_names
    source = ASTSource(
        kernel.function,
        {name: kernel.types.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in kernel.constants.items()},
    )
    options = {"num_warps": 2, "enable_fp_fusion": True}
    return compile_function(source, target=GPUTarget("cuda", 80, 32), options=options)


def test_ours_are_in_the_cache_folder(
    cache_folder: Path, their_folder: Path, hits: list[bool]
) -> None:
    before = dict(os.environ)
    first = compile_for(aot_kernels.gemv(), SM_80)
    assert not their_folder.exists()
    assert dict(os.environ) == before
    (cubin,) = cache_folder.glob("_gemv-*.cubin")
    assert cubin.read_bytes() == first.asm["cubin"]
    assert cache_folder.stat().st_mode & 0o777 == 0o700
    again = compile_for(aot_kernels.gemv(), SM_80)
    assert again.asm["cubin"] == first.asm["cubin"]
    assert hits == [False, True]


def test_a_damaged_result_is_made_anew(cache_folder: Path, hits: list[bool]) -> None:
    first = compile_for(aot_kernels.gemv(), SM_80)
    (cubin,) = cache_folder.glob("_gemv-*.cubin")
    cubin.write_bytes(b"broken")
    assert compile_for(aot_kernels.gemv(), SM_80).asm["cubin"] == first.asm["cubin"]
    assert cubin.read_bytes() == first.asm["cubin"]
    assert hits == [False, False]


def test_those_of_others_stay_where_they_were(cache_folder: Path, their_folder: Path) -> None:
    compile_for(aot_kernels.gemv(), SM_80)
    ours = set(cache_folder.iterdir())
    compile_theirs()
    assert list(their_folder.rglob("*.cubin"))
    assert set(cache_folder.iterdir()) == ours


def test_a_manager_of_others_stays_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Theirs(FileCacheManager):
        def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
            asked.append(key)
            super().__init__(key, override, dump)

    monkeypatch.setattr(knobs.cache, "manager_class", Theirs)
    compile_for(aot_kernels.gemv(), SM_80)
    assert asked == []
    compile_theirs()
    assert len(asked) == 1
