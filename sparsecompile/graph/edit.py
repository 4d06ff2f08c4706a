"""Edit: how passes see and change a graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from sparsecompile.detection.survey import Survey, survey, with_codec
from sparsecompile.errors import Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Format
from sparsecompile.graph.considered import Considered, PartOf, Rewrite, module_name
from sparsecompile.graph.fake_calls import example, fake_call
from sparsecompile.graph.mutation import writes_in_place
from sparsecompile.graph.pattern import Target
from sparsecompile.graph.timed import timed
from sparsecompile.graph.weight_view import WeightView
from sparsecompile.kernels.codegen import Device
from sparsecompile.kernels.spec import KernelSpec, SpecOf
from sparsecompile.weights.expression import Binding, lossy


class Edit:
    """The graph under change, and the record of what happened to it.

    Args:
        module: the graph; it is changed.
        weights: what is known of the live tensors behind its placeholders.
        formats: the formats that may be used, in order of preference.
        device: where the graph will run.
    """

    def __init__(
        self,
        module: GraphModule,
        weights: WeightView,
        formats: tuple[Format, ...],
        device: Device,
    ) -> None:
        self.module = module
        self.weights = weights
        self.formats = formats
        self.device = device
        self.rewrites: list[Rewrite] = []
        self._remembered: dict[Hashable, Any] = {}
        self.considered: dict[str, Considered] = {}
        self.position: str | None = None

    def nodes(self) -> Iterator[Node]:
        """The nodes there are now, in order, without those that get erased on the way."""
        for node in list(self.module.graph.nodes):
            if not node._erased:
                self.position = node.name
                yield node

    def call(
        self,
        target: Target,
        args: tuple[Any, ...],
        *,
        before: Node,
        like: Node | None = None,
        value: Any = None,
        origins: tuple[str, ...] = (),
        part: PartOf | None = None,
    ) -> Node:
        """Insert a call.

        Args:
            target: a function, or the name of a tensor method.
            args: nodes and constants.
            before: where.
            like: node whose place in the model it inherits; `before` if None.
            value: fake tensor that stands for its value; by default the call is run on the fake
                tensors of its arguments.
            origins: linears of the model that it does the work of, for the report.
            part: which part it is, for the report.
        """
        graph = self.module.graph
        with graph.inserting_before(before):
            insert: Any = graph.call_method if isinstance(target, str) else graph.call_function
            node: Node = insert(target, args)
        node.meta = {
            key: value
            for key, value in (like or before).meta.items()
            if key not in ("example_value", "val")
        }
        node.meta["example_value"] = fake_call(node) if value is None else value
        node.meta["sparsecompile_origins"] = origins
        node.meta["sparsecompile_part"] = part
        return node

    def replace(self, old: Node, new: Node) -> None:
        """Let every user of `old` use `new`; erase `old` and the weight functions only it read."""
        old.replace_all_uses_with(new)
        self.erase(old)

    def hoist(self, node: Node, before: Node) -> None:
        """Move a weight function, and those it reads, up to `before` where they come later.

        Raises:
            Reject: it reads something else than weights.
        """
        if not self.weights.is_weight(node):
            raise Reject(f"{node.name} is not a weight of the model")
        self._hoist(node, before)

    def _hoist(self, node: Node, before: Node) -> None:
        if node.op != "placeholder" and before < node:
            for source in node.all_input_nodes:
                self._hoist(source, before)
            before.prepend(node)

    def erase(self, node: Node) -> None:
        """Erase a node without users, and the weight functions only it read."""
        sources = node.all_input_nodes
        self.module.graph.erase_node(node)
        for source in sources:
            if not source.users and self.weights.is_function(source):
                self.erase(source)

    def discard(self, nodes: Iterable[Node]) -> None:
        """Erase those calls that nobody uses and that write nothing, and what only they read."""
        for node in nodes:
            unused = not node._erased and not node.users and node.op.startswith("call")
            if unused and not writes_in_place(node):
                sources = node.all_input_nodes
                self.module.graph.erase_node(node)
                self.discard(sources)

    def once(
        self,
        target: Target,
        args: tuple[Any, ...],
        *,
        key: Hashable,
        before: Node,
        value: Any = None,
    ) -> Node:
        """A call that the graph has once for all who ask with this key, before the first of them.

        Args:
            target: a function, or the name of a tensor method.
            args: nodes and constants.
            key: what it depends on, besides the target.
            before: where.
            value: as for `call`.
        """
        make = partial(self.call, target, args, before=before, value=value)
        found: Node = self.remembered((target, key), make)
        return found

    def remembered(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What was made of this graph under a key, or is made now."""
        if key not in self._remembered:
            self._remembered[key] = make()
        return self._remembered[key]

    def binding(self, node: Any) -> Binding:
        """The live tensors behind a weight.

        Raises:
            Reject: it is not a frozen function of the model's own weights.
        """
        return self.weights.binding(node)

    def survey(
        self,
        linear: Node,
        weight: Any,
        *,
        codec: Codec | None = None,
        spec: SpecOf = KernelSpec,
        change: str = "",
        reader: str = "",
    ) -> Survey:
        """What every format finds in the weight of a node; kept for the report.

        Args:
            linear: the node, such as a linear.
            weight: its weight.
            codec: a lossy codec to ask for every structure with, `dense` included; None asks for
                the lossless formats.
            spec: of the kernel that it is for: a packed linear's unless it says otherwise.
            change: what is lossy in that, such as `quantize int8`.
            reader: what the node is, where it is no linear, such as `embedding`.

        Raises:
            Reject: the weight cannot be taken.
        """
        formats = self.formats if codec is None else with_codec(self.formats, codec)
        considered = Considered(linear, self.weights.names(weight), reader=reader)
        try:
            considered.value = self.value(weight)
            binding = considered.binding = self.binding(weight)
            considered.look = partial(
                survey, binding, formats=formats, device=self.device, spec=spec
            )
            with timed("detection"):
                considered.survey = considered.look(self.weights.live(binding))
            part = considered.part = weight.meta.get("sparsecompile_part")
            changes = (lossy(binding), part.lossy if part is not None else "", change)
            considered.lossy = ", ".join(filter(None, changes))
        except Reject as reject:
            considered.reason = reject.reason
            raise
        finally:
            self.considered[linear.name] = considered
        return considered.survey

    @contextmanager
    def considering(self, node: Node, reader: str) -> Iterator[None]:
        """Keep for the report that a node without a weight was looked at, and why it was refused.

        Args:
            node: the node.
            reader: what it is, such as `attention`.

        Raises:
            Reject: what is raised within.
        """
        considered = Considered(node, module_name(node), reader=reader, has_weight=False)
        self.considered[node.name] = considered
        try:
            yield
        except Reject as reject:
            considered.reason = reject.reason
            raise

    def value(self, node: Any) -> Tensor:
        """The fake tensor that stands for a node's value.

        Raises:
            Reject: nothing is known of it.
        """
        value = example(node) if isinstance(node, Node) else None
        if not isinstance(value, Tensor):
            raise Reject(f"nothing is known of the shape and dtype of {node}")
        return value

    def check_dtypes(self, weight: Node, **others: Node | None) -> None:
        """Return if the named inputs of a linear that there are have its weight's dtype.

        Raises:
            Reject: one has another; kernels have one dtype for all.
        """
        dtype = self.value(weight).dtype
        for name, other in others.items():
            if other is not None and self.value(other).dtype != dtype:
                raise Reject(
                    f"{name} is {self.value(other).dtype}, the weight {dtype}; "
                    "kernels need them equal"
                )

    def same_shape(self, a: Any, b: Any) -> bool:
        """Whether two nodes surely have one shape and dtype; adds no guard on symbolic sizes."""
        first, second = self.value(a), self.value(b)
        if first.dtype != second.dtype or first.dim() != second.dim():
            return False
        return all(self.surely(p == q) for p, q in zip(first.shape, second.shape, strict=True))

    def surely(self, condition: Any) -> bool:
        """Whether a condition holds for all sizes; adds no guard on symbolic ones."""
        # It imports sympy, which takes longer than torch.
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return bool(statically_known_true(condition))

    def is_contiguous(self, node: Node) -> bool:
        """Whether a node's value surely lies row by row; adds no guard on symbolic sizes."""
        value = self.value(node)
        rows = value.new_empty(value.shape).stride()
        return all(self.surely(p == q) for p, q in zip(value.stride(), rows, strict=True))

    def writes_between(self, first: Node, last: Node) -> Node | None:
        """A node between two others that may write in place, or None."""
        node = first.next
        while node is not last:
            if writes_in_place(node):
                return node
            node = node.next
        return None

    def replaced(self, pass_name: str, node: Node) -> None:
        """Record that a pass changes a node."""
        self.rewrites.append(Rewrite(pass_name, node.name))

    def rejected(self, pass_name: str, node: Node | None, reason: str) -> None:
        """Record a refusal."""
        self.rewrites.append(Rewrite(pass_name, node.name if node is not None else "", reason))

    def check(self) -> None:
        """Check the graph and have its code generated anew."""
        self.module.graph.lint()
        self.module.recompile()


def origins(node: Node) -> tuple[str, ...]:
    """The nodes of the model's graph that a node does the work of, by their names."""
    return tuple(node.meta.get("sparsecompile_origins", ()))
