"""What a workload and a peer are; a contestant is a peer with options, on one workload."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from typing import ClassVar

from sparsecompile.bench.peers.prepared import LeftOut, Prepared
from sparsecompile.bench.peers.torch_task import TorchTask
from sparsecompile.errors import SparseCompileError


@dataclass(frozen=True)
class Job:
    """What the process of one contestant is told.

    Attributes:
        workload: its name.
        size: one of the workload's sizes.
        peer: its name.
        options: of the peer by name; `type` is the one written without a name.
        threads: that it may use.
        model: path of the model, or None for the one that a package brings.
        add: further modules with workloads and peers.
        profile: kernels that Inductor generates say their names to the profiler.
    """

    workload: str
    size: int
    peer: str
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    model: str | None = None
    add: tuple[str, ...] = ()
    profile: bool = False

    @property
    def contestant(self) -> str:
        """`sparse bfloat16 prune=2:4`."""
        words = (
            value if name == "type" else f"{name}={value}" for name, value in self.options.items()
        )
        return " ".join((self.peer, *words))

    def take(self, **known: str) -> dict[str, str]:
        """The options, with these defaults.

        Raises:
            LeftOut: an option is not one of these.
        """
        for name in self.options:
            if name not in known:
                names = ", ".join(known) or "none"
                raise LeftOut(f"{self.peer} has no option {name!r}; known: {names}")
        return {**known, **self.options}


class Workload(ABC):
    """A model, and what is done with it."""

    name: ClassVar[str]
    kind: ClassVar[str]
    """What a peer has to know of it: `decode`, `generate`, `prefill`, `encode`."""
    unit: ClassVar[str]
    """Of what is counted: `tokens`, `sentences`."""
    sizes: ClassVar[tuple[int, ...]]
    """Measured unless others are asked for."""

    @abstractmethod
    def label(self, size: int) -> str:
        """What a size is: `batch 8 x 128 tokens`."""

    @abstractmethod
    def missing(self, model: str | None) -> str | None:
        """What has to be installed or given for it, or None."""

    @abstractmethod
    def torch_task(self, job: Job, dtype: str) -> TorchTask:
        """The model in torch, and how a sample calls it.

        Raises:
            LeftOut: the model does not go with the workload.
        """


class Peer(ABC):
    """A runtime."""

    name: ClassVar[str]
    requires: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Modules, each with the package that brings it."""

    def missing(self) -> str | None:
        """What has to be installed for it, or None."""
        packages = [package for module, package in self.requires if not find_spec(module)]
        return f"not installed: pip install {' '.join(packages)}" if packages else None

    def versions(self) -> str:
        """Of the packages that it is made of: `torchao 0.18.0`."""
        return ", ".join(f"{name} {metadata.version(name)}" for _, name in self.requires)

    @abstractmethod
    def variants(self, workload: Workload) -> tuple[str, ...]:
        """Options that are measured unless others are asked for; none where it does not fit."""

    @abstractmethod
    def prepare(self, workload: Workload, job: Job) -> Prepared:
        """Load and compile; called in the contestant's own process.

        Raises:
            LeftOut: it cannot run this.
        """


class UnknownPeerError(SparseCompileError):
    """A name that no workload or peer has."""
