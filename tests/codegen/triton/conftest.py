"""The cache of all tests of Triton kernels."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _shared_cache(shared_cache: Path) -> None:
    """Modules are written once."""
