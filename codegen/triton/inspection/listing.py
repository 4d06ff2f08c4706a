"""Listing: machine instructions of any GPU, and the loops among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """One machine instruction.

    Attributes:
        name: with its modifiers: `HGMMA.64x16x16.F32`, `v_mfma_f32_16x16x16_f16`.
        operands: as they are written.
        line: of the Triton source that it comes from, 0 where that is unknown.
        labels: that stand before it.
        target: the label that it may jump to.
        ends: whether what follows it is reached by jumps only.
    """

    name: str
    operands: str
    line: int
    labels: tuple[str, ...] = ()
    target: str | None = None
    ends: bool = False


@dataclass(frozen=True)
class Loop:
    """A natural loop: what runs again and again between its head and the jumps back to it.

    Attributes:
        head: place of its first instruction.
        depth: 1 for a loop in no other.
        places: of its own instructions, rising, those of loops inside it left out.
    """

    head: int
    depth: int
    places: tuple[int, ...]


def find_loops(listing: Sequence[Instruction]) -> list[Loop]:
    """All natural loops of a listing, in order of their heads.

    Where a compiler moved parts of a loop out of line they count to it all the same.
    """
    if not listing:
        return []
    starts = _starts(listing)
    successors = _successors(listing, starts)
    predecessors: list[set[int]] = [set() for _ in starts]
    for block, targets in enumerate(successors):
        for target in targets:
            predecessors[target].add(block)
    reached, dominators = _dominators(successors, predecessors)
    bodies: dict[int, set[int]] = {}
    for block in reached:
        for target in successors[block]:
            if target in dominators[block]:
                bodies.setdefault(target, {target}).update(_body(target, block, predecessors))
    loops = []
    for head, body in sorted(bodies.items()):
        outer = [b for h, b in bodies.items() if h != head and head in b and body < b]
        inner = [b for h, b in bodies.items() if h != head and h in body and b < body]
        own = body.difference(*inner)
        places = tuple(place for block in sorted(own) for place in _places(block, starts, listing))
        loops.append(Loop(starts[head], 1 + len(outer), places))
    return loops


def _starts(listing: Sequence[Instruction]) -> list[int]:
    """Places where basic blocks begin."""
    found = {0}
    for place, instruction in enumerate(listing):
        if instruction.labels:
            found.add(place)
        if (instruction.target is not None or instruction.ends) and place + 1 < len(listing):
            found.add(place + 1)
    return sorted(found)


def _places(block: int, starts: Sequence[int], listing: Sequence[Instruction]) -> range:
    end = starts[block + 1] if block + 1 < len(starts) else len(listing)
    return range(starts[block], end)


def _successors(listing: Sequence[Instruction], starts: Sequence[int]) -> list[set[int]]:
    blocks = {label: block for block, s in enumerate(starts) for label in listing[s].labels}
    found: list[set[int]] = []
    for block in range(len(starts)):
        last = listing[_places(block, starts, listing)[-1]]
        targets = {blocks[last.target]} if last.target in blocks else set()
        if not last.ends and block + 1 < len(starts):
            targets.add(block + 1)
        found.append(targets)
    return found


def _dominators(
    successors: Sequence[set[int]], predecessors: Sequence[set[int]]
) -> tuple[list[int], list[set[int]]]:
    """Blocks that can be reached, and for each block those on every way to it."""
    reached = sorted(_reach(0, successors))
    everything = set(reached)
    dominators = [set(everything) for _ in successors]
    dominators[0] = {0}
    changed = True
    while changed:
        changed = False
        for block in reached[1:]:
            before = [dominators[p] for p in predecessors[block] & everything]
            found = set.intersection(*before) | {block}
            changed |= found != dominators[block]
            dominators[block] = found
    return reached, dominators


def _reach(first: int, edges: Sequence[set[int]]) -> Iterator[int]:
    seen, waiting = {first}, [first]
    while waiting:
        block = waiting.pop()
        yield block
        waiting += edges[block] - seen
        seen |= edges[block]


def _body(head: int, last: int, predecessors: Sequence[set[int]]) -> set[int]:
    """Blocks from which the jump back is reached without passing the head."""
    seen, waiting = {head}, [last]
    while waiting:
        block = waiting.pop()
        if block not in seen:
            seen.add(block)
            waiting += predecessors[block]
    return seen
