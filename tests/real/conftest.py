"""The examples' models, and the examples themselves as modules."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "examples"))


@pytest.fixture(scope="session")
def require() -> Callable[..., None]:
    """Skip a test unless these packages are installed."""

    def check(*packages: str) -> None:
        for package in packages:
            try:
                version(package)
            except PackageNotFoundError:
                pytest.skip(f"{package} is not installed; it is in the extra `models`")

    return check
