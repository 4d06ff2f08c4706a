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

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch._dynamo.callback import callback_handler
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where `--durations` are asked for: what files of tests took, those above 1% of all."""
    if terminalreporter.config.option.durations is None:
        return
    taken: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                taken[report.location[0]] += report.duration
    whole = sum(taken.values())
    shown = [(file, each) for file, each in taken.most_common() if each > whole / 100]
    rest = whole - sum(each for _, each in shown)
    terminalreporter.section("seconds by file")
    for file, each in (*shown, (f"{len(taken) - len(shown)} others", rest), ("all", whole)):
        terminalreporter.write_line(f"{each:8.1f} {file}")


@pytest.fixture(scope="session", autouse=True)
def _nothing_begins_early() -> None:
    """Tests that are collected import the backend: what it begins is no test's but its own."""
    callback_handler.clear()


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
