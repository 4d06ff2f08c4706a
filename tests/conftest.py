"""Settings that all tests share."""

from __future__ import annotations

import os

# Test processes run side by side: threads that wait must not spin. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# What is packed must not depend on what is fast on this machine at this moment.
os.environ.setdefault("SPARSECOMPILE_TUNE", "off")
# Compiling in this process costs less than a pool of others for each test process.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from tuned import Tuned

settings.register_profile(
    "default",
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    """What tests build is theirs alone, and kept for all test processes and the next run."""
    folder = config.rootpath / ".pytest_cache" / "sparsecompile"
    os.environ.setdefault("SPARSECOMPILE_CACHE_DIR", str(folder))


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    """Every test compiles for itself, and draws the same random numbers."""
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SPARSECOMPILE_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tuned:
    """A tuner whose measurements are made up."""
    return Tuned(monkeypatch, tmp_path / "record")
