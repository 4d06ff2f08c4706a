"""Environment: where and with what a figure was measured."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

import sparsecompile


@dataclass(frozen=True)
class Environment:
    """What every row of a benchmark says about its origin.

    Attributes:
        machine: name of the CPU.
        threads: that torch uses.
        torch: version of torch.
        sparsecompile: version of this package.
        commit: of the repository that this package lies in, with `-dirty` where files differ from
            it; empty without a repository.
    """

    machine: str
    threads: int
    torch: str
    sparsecompile: str
    commit: str

    @property
    def where(self) -> str:
        """Where and with what, in a line."""
        versions = f"torch {self.torch}, sparsecompile {self.sparsecompile} {self.commit}".strip()
        return f"{self.machine}, {self.threads} threads, {versions}"

    @classmethod
    def here(cls, machine: str) -> Environment:
        """This process.

        Args:
            machine: name of the CPU.
        """
        return cls(
            machine,
            torch.get_num_threads(),
            torch.__version__,
            sparsecompile.__version__,
            package_commit(),
        )


@cache
def package_commit(folder: Path = Path(sparsecompile.__file__).parent) -> str:
    """The commit of a package's files, or an empty text where they are in no repository.

    Args:
        folder: of the package.
    """
    # An installed package may lie in the repository of something else.
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return ""
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") or ""


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ("git", "-C", str(folder), *words), capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()
