"""One cache folder for all tests of the ahead-of-time analysis."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def _shared(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "aot"
    folder.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setenv("SPARSECOMPILE_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
