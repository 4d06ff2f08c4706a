"""Pass and Rule: changes to the graph; Phase and the driver that orders and runs them."""

from __future__ import annotations

import heapq
import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from sparsecompile.component import Component
from sparsecompile.errors import OrderingError, PassError, Reject, SparseCompileError

if TYPE_CHECKING:
    from sparsecompile.graph.edit import Edit
    from sparsecompile.graph.pattern import Call, Match

Facts = TypeVar("Facts")


class Phase(IntEnum):
    """When a pass runs."""

    NORMALIZE = 1
    """One spelling for everything later passes look for."""
    FUSE = 2
    """Fusions of dense operations; they stay where no weight of the graph is packed, too."""
    QUANTIZE = 3
    """Lossy changes of weights that the user asked for: pruning, quantisation."""
    PACK = 4
    """Dense weights to packed ones."""
    FINISH = 5
    """What packed nodes can take in."""


class Pass(Component):
    """A change to the graph. Passes are stateless; give them frozen dataclass fields as options."""

    name: ClassVar[str]
    phase: ClassVar[Phase]
    before: ClassVar[tuple[str, ...]] = ()
    """Names of passes of the same phase that must run later; unknown names are ignored."""
    after: ClassVar[tuple[str, ...]] = ()
    """Names of passes of the same phase that must run earlier; unknown names are ignored."""

    @abstractmethod
    def run(self, edit: Edit) -> None:
        """Change the graph through `edit`.

        Raises:
            Reject: it could not do a thing; recorded against the pass.
        """


class Rule(Pass, Generic[Facts]):
    """A Pass made of patterns, a guard and a replacement, applied to every node in one sweep.

    A rule keeps nothing on `self`: what the guard learns it returns, and the driver hands it to
    `replace`. The new node is seen by the sweep's later matches.
    """

    @abstractmethod
    def patterns(self) -> Sequence[Call]:
        """What to look for; the first pattern that matches a node counts."""

    @abstractmethod
    def guard(self, match: Match, edit: Edit) -> Facts:
        """Decide.

        Raises:
            Reject: leave this match alone, with the reason.
        """

    @abstractmethod
    def replace(self, match: Match, facts: Facts, edit: Edit) -> None:
        """Do it."""

    def run(self, edit: Edit) -> None:
        """Sweep over the graph once, in order; the first match that the guard takes is replaced."""
        for node in edit.nodes():
            refusal = ""
            for match in (m for pattern in self.patterns() for m in pattern.matches(node)):
                try:
                    facts = self.guard(match, edit)
                except Reject as reject:
                    refusal = reject.reason
                    continue
                edit.replaced(self.name, node)
                self.replace(match, facts, edit)
                break
            else:
                if refusal:
                    edit.rejected(self.name, node, refusal)


def order(passes: Iterable[Pass]) -> tuple[Pass, ...]:
    """Passes in the order they run: by phase, `before` and `after`, then registration.

    Raises:
        OrderingError: a cycle; it names the passes in it.
    """
    passes = tuple(passes)
    ordered: list[Pass] = []
    for phase in Phase:
        ordered += _order_phase([p for p in passes if p.phase == phase])
    return tuple(ordered)


def _order_phase(passes: Sequence[Pass]) -> list[Pass]:
    rank = {p.name: i for i, p in enumerate(passes)}
    later: dict[str, set[str]] = {p.name: set() for p in passes}
    for p in passes:
        later[p.name].update(name for name in p.before if name in rank)
        for name in p.after:
            if name in rank:
                later[name].add(p.name)
    waiting = {name: sum(name in others for others in later.values()) for name in rank}
    ready = [rank[name] for name, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    ordered: list[Pass] = []
    while ready:
        current = passes[heapq.heappop(ready)]
        ordered.append(current)
        for name in later[current.name]:
            waiting[name] -= 1
            if waiting[name] == 0:
                heapq.heappush(ready, rank[name])
    if len(ordered) < len(passes):
        raise OrderingError(_cycle({n: o for n, o in later.items() if waiting[n] > 0}))
    return ordered


def _cycle(later: Mapping[str, set[str]]) -> tuple[str, ...]:
    """One cycle in a graph of which every node has a predecessor in it."""
    path = [min(later)]
    while True:
        current = path[-1]
        previous = min(name for name, others in later.items() if current in others)
        if previous in path:
            return tuple(reversed(path[path.index(previous) :]))
        path.append(previous)


def run_passes(
    passes: Iterable[Pass], edit: Edit, after_each: Callable[[Pass], object] | None = None
) -> None:
    """Run ordered passes; the graph is checked after each.

    Args:
        passes: ordered passes.
        edit: the graph.
        after_each: called with the pass after it ran, or None.

    Raises:
        PassError: a pass raised something else than `Reject`, or broke the graph.
    """
    for current in passes:
        try:
            current.run(edit)
            edit.check()
        except Reject as reject:
            edit.rejected(current.name, None, reject.reason)
        except SparseCompileError:
            raise
        except Exception as error:
            *_, (frame, line) = traceback.walk_tb(error.__traceback__)
            place = f"{frame.f_code.co_filename}:{line}"
            message = f"{type(error).__name__}: {error} ({place})"
            raise PassError(current.name, edit.position, message) from error
        if after_each is not None:
            after_each(current)
