"""`merge_linears`: packed linears that read the same input become one."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node

from sparsecompile import (
    Edit,
    Match,
    OptionError,
    Pass,
    Phase,
    Reject,
    format_of,
    insert_packed_linear,
    origins,
    packed_linears,
)
from sparsecompile.weights.parts import has_parts


@dataclass(frozen=True)
class MergeLinears(Pass):
    """`packed(x, a), packed(x, b) -> split(packed(x, cat(a, b)))`, such as q/k/v and gate/up.

    Where formats and activations are equal and both or neither have a bias. Parts are contiguous,
    as the linears' results were: what reads them may have been traced with their strides. Inductor
    makes most of these copies where they are read.

    Attributes:
        most: how many linears may become one.
    """

    most: int = 8

    name: ClassVar[str] = "merge_linears"
    phase: ClassVar[Phase] = Phase.PACK
    after: ClassVar[tuple[str, ...]] = ("pack_linear",)

    def __post_init__(self) -> None:
        """Check the number before anything is compiled.

        Raises:
            OptionError: it is none, or too small.
        """
        if isinstance(self.most, bool) or not isinstance(self.most, int) or self.most < 2:
            raise OptionError(
                "passes",
                f"'most' of pass 'merge_linears' must be a whole number from 2, not {self.most!r}; "
                'options={"passes": {"without": ["merge_linears"]}} merges none',
            )

    def run(self, edit: Edit) -> None:
        """Merge group by group."""
        groups: dict[object, list[Match]] = defaultdict(list)
        for match in packed_linears(edit):
            if not match["epilogue"]:
                # What is packed in the model would be kept twice, merged with what is not.
                is_stored = edit.weights.stored(match["weight"]) is not None
                # Parts of weights, other than weights, never run dense.
                is_part = has_parts(edit.binding(match["weight"]))
                key = (match["x"], match["format"], match["activations"], match["bias"] is None)
                groups[(*key, is_stored, is_part)].append(match)
        for group in groups.values():
            if len(group) < 2:
                continue
            group = group[: self.most]
            try:
                self._check(group, edit)
            except Reject as reject:
                edit.rejected(self.name, group[0].node, reject.reason)
            else:
                edit.replaced(self.name, group[0].node)
                self._merge(group, edit)

    def _check(self, group: list[Match], edit: Edit) -> None:
        first, last = group[0].node, group[-1].node
        writer = edit.writes_between(first, last)
        if writer is not None:
            raise Reject(f"{writer.name} writes in place between linears of one input")
        multiple = format_of(group[0]["format"]).structure.row_multiple
        for match in group[:-1]:
            rows = edit.value(match["weight"]).shape[0]
            if rows % multiple:
                raise Reject(f"{rows} rows are not a multiple of the format's {multiple}")
        for match in group:
            for weight in (match["weight"], match["bias"]):
                if weight is not None:
                    edit.hoist(weight, first)

    def _merge(self, group: list[Match], edit: Edit) -> None:
        first = group[0].node
        sizes = [int(edit.value(match["weight"]).shape[0]) for match in group]
        weight = self._cat((match["weight"] for match in group), first, edit)
        bias = None
        if group[0]["bias"] is not None:
            bias = self._cat((match["bias"] for match in group), first, edit)
        merged = insert_packed_linear(
            edit,
            group[0]["x"],
            weight,
            bias,
            format_of(group[0]["format"]),
            before=first,
            activations=group[0]["activations"],
            origins=tuple(name for match in group for name in origins(match.node)),
        )
        split = edit.call(torch.split, (merged, sizes, -1), before=first)
        parts = []
        for index, match in enumerate(group):
            part = edit.call(operator.getitem, (split, index), before=first, like=match.node)
            parts.append(edit.call("contiguous", (part,), before=first, like=match.node))
        for match, part in zip(group, parts, strict=True):
            edit.replace(match.node, part)

    def _cat(self, parts: Iterable[Node], before: Node, edit: Edit) -> Node:
        nodes = tuple(parts)
        return edit.call(torch.cat, (nodes,), before=before, like=nodes[0])


COMPONENTS = (MergeLinears(),)
