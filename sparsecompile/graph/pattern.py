"""Call and Match: the pattern vocabulary of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch.fx import Node

Target = Callable[..., Any] | str


@dataclass(frozen=True)
class Match:
    """A node that matched a pattern, with the captured arguments by name."""

    node: Node
    pattern: Call
    captured: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        """A captured argument or node; None where an optional argument is absent."""
        return self.captured[name]


@dataclass(frozen=True)
class Call:
    """Pattern: a call of one of `targets`, its arguments captured by parameter name.

    Attributes:
        targets: functions, or names of tensor methods.
        parameters: names of the arguments in order, however a call passes them.
        where: parameter -> pattern that the argument's node has to match; what that captures is
            added under its own parameter names, so give nested patterns distinct ones.
        capture: name under which the matched node itself is captured.
        commutative: also try the first two arguments swapped.
        tag: for the rule's own use.
    """

    targets: tuple[Target, ...]
    parameters: tuple[str, ...]
    where: Mapping[str, Call] = field(default_factory=dict)
    capture: str = ""
    commutative: bool = False
    tag: str = ""

    def matches(self, node: object) -> Iterator[Match]:
        """Every way in which this pattern matches a node: two at most, for a commutative one."""
        if isinstance(node, Node) and self._calls(node):
            for args in self._orders(node):
                captured = self._capture(node, args)
                if captured is not None:
                    yield Match(node, self, captured)

    def match(self, node: object) -> Match | None:
        """The first match of this pattern at a node, or None."""
        return next(self.matches(node), None)

    def _calls(self, node: Node) -> bool:
        kind = "call_method" if isinstance(node.target, str) else "call_function"
        return node.op == kind and node.target in self.targets

    def _orders(self, node: Node) -> Iterator[tuple[Any, ...]]:
        yield node.args
        if self.commutative and len(node.args) > 1:
            yield (node.args[1], node.args[0], *node.args[2:])

    def _capture(self, node: Node, args: tuple[Any, ...]) -> dict[str, Any] | None:
        if len(args) > len(self.parameters) or not set(node.kwargs) <= set(self.parameters):
            return None
        captured: dict[str, Any] = dict.fromkeys(self.parameters)
        captured.update(zip(self.parameters, args, strict=False))
        captured.update(node.kwargs)
        for parameter, pattern in self.where.items():
            inner = pattern.match(captured[parameter])
            if inner is None:
                return None
            captured.update(inner.captured)
        if self.capture:
            captured[self.capture] = node
        return captured
