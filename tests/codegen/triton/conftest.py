"""What tests of Triton kernels share: the cache, a GPU that is not there, a linear for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_gpu import Gpu
from packing import sparse_
from torch import nn


@pytest.fixture(autouse=True)
def _shared_cache(shared_cache: Path) -> None:
    """Modules are written once."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A linear in 2:4."""
    return sparse_(nn.Linear(64, 32)).half().requires_grad_(False)
