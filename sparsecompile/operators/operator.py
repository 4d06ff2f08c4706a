"""Operator: a kind of node that gets kernels, and everything that is particular to it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol

import torch
from torch import Tensor
from torch.fx import Node

from sparsecompile.component import Component
from sparsecompile.errors import Reject
from sparsecompile.formats.names import format_of
from sparsecompile.formats.packed import Format
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.pattern import Call, Match
from sparsecompile.kernels.codegen import Device
from sparsecompile.kernels.contents import Contents, Sample
from sparsecompile.kernels.dense_copy import DenseCopy
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.spec import S
from sparsecompile.options.options import Options
from sparsecompile.weights.packing import packer

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost


class Slots(Protocol):
    """Placeholders for what a compiled graph reads in place of the model's own weights."""

    def packed(self, weight: Node, format: Format, kernel: Kernel[Any]) -> Node:
        """The layout of a weight that a kernel reads."""

    def dense(self, weight: Node, copy: DenseCopy | None) -> Node:
        """A dense copy of a weight, in this order."""


@dataclass(frozen=True)
class Emitted:
    """The call that a node became.

    Attributes:
        node: the call.
        weight: the placeholder of the layout that it reads, if it reads one.
        dense: the dense weights that it is handed too.
    """

    node: Node
    weight: Node | None = None
    dense: tuple[Node, ...] = ()


class Operator(Component, Generic[S]):
    """A kind of node that gets kernels, such as the packed linear.

    Passes put its nodes into the graph: calls of the one target of `pattern`, which is the
    executable definition of what they compute. Lowering asks for the problem of each, has it
    decided among the templates and library calls whose `operator` is this one's name, and has
    `emit` put a call in the node's place, or `restore` what was there before.
    """

    name: ClassVar[str]
    pattern: ClassVar[Call]
    """Its nodes; captures `weight` and the name of its `format` where they have a weight."""
    spelling: ClassVar[Call | None] = None
    """How the model writes it, with `weight` captured: the report lists those that no pass took."""
    op: ClassVar[str]
    """The op that graphs call its kernels by, such as `sparsecompile::linear`."""

    follows: ClassVar[bool] = False
    """Whether its nodes read the layouts that those of others have chosen of the same weight."""

    def spec(self, format: Format, dtype: torch.dtype) -> S:
        """The plainest spec for a weight in this format.

        Raises:
            Reject: its nodes read no weight.
        """
        raise Reject(f"{self.name} reads no weight")

    @abstractmethod
    def problem(self, match: Match, edit: Edit, options: Options) -> Problem[S]:
        """What a node needs a kernel for."""

    @abstractmethod
    def emit(
        self, match: Match, problem: Problem[S], call: Calling, slots: Slots, edit: Edit
    ) -> Emitted:
        """Put the call of a kernel in the place of a node."""

    @abstractmethod
    def restore(self, match: Match, problem: Problem[S], slots: Slots, edit: Edit) -> None:
        """Put in the place of a node what the model computes without kernels."""

    @abstractmethod
    def example(
        self, problem: Problem[S], rows: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Random inputs of a call with so many rows, without the weight: on the CPU."""

    @abstractmethod
    def run(
        self, problem: Problem[S], inputs: Sequence[Tensor], weight: Tensor, kernel: Kernel[S]
    ) -> Callable[[], Tensor]:
        """A call of a kernel on inputs as `example` gives them, and a layout."""

    @abstractmethod
    def run_dense(
        self, problem: Problem[S], inputs: Sequence[Tensor], weight: Tensor
    ) -> Callable[[], Tensor]:
        """What the model computes on the same inputs: the baseline.

        Args:
            problem: what is needed.
            inputs: as `example` gives them.
            weight: `[n, k]`, or what `problem.dense_copy` makes of it.
        """

    @abstractmethod
    def dense_cost(self, problem: Problem[S]) -> Cost:
        """What the baseline has to move and compute."""

    def nothing_to_gain(self, problem: Problem[S], device: Device) -> str:
        """Why no kernel can beat the baseline, so that none is looked for; empty if one may."""
        return ""

    def sample(self, match: Match, problem: Problem[S], edit: Edit) -> Callable[[], Sample]:
        """Makes what candidates for a node are measured on: its weight, packed."""
        binding = edit.binding(match["weight"])
        pack = packer(binding, edit.weights.live(binding), format_of(match["format"]))
        return lambda: Contents(pack())

    def examples(self) -> Sequence[tuple[Problem[S], Sample]]:
        """Problems that laws try, where there is no weight whose formats say what may come."""
        return ()

    def overload(self) -> Any:
        """The op, as graphs have it."""
        namespace, _, name = self.op.partition("::")
        return getattr(getattr(torch.ops, namespace), name).default

    def facts(self, problem: Problem[S]) -> Mapping[str, Any]:
        """What the report says of a node beside its kernel: fields of `NodeReport`."""
        return {}


@dataclass(frozen=True)
class Calling:
    """A kernel as a graph calls it.

    Attributes:
        kernel: the kernel.
        op: the op.
        key: what the graph calls it: the kernel's key, or a number that it serves.
        wants_dense: whether the op is to be handed the dense weight too.
    """

    kernel: Kernel[Any]
    op: Any
    key: int
    wants_dense: bool
