"""WeightView: which nodes of a graph are frozen functions of the model's live weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from sparsecompile.errors import Reject
from sparsecompile.formats.expression import Expression
from sparsecompile.formats.packed import Format
from sparsecompile.graph.compiled_model import Names
from sparsecompile.graph.fake_calls import Use, use_of
from sparsecompile.graph.transformed_regions import ambient_scope, scopes
from sparsecompile.graph.weight_functions import Function, is_weight_function, takes_subclasses
from sparsecompile.weights.channels import take_channels
from sparsecompile.weights.expression import Apply, Binding, Leaf, is_fake, live
from sparsecompile.weights.packed_tensor import PackedTensor

_READERS: set[Any] = set()
_CONTAINERS = ("_modules", "_parameters", "_buffers")


def weight_reader(function: Function) -> Function:
    """Declare a function that reads a weight and neither changes nor returns it.

    For those that most weights are read by, and those that cannot be run on fake tensors, where
    that would be seen.
    """
    _READERS.add(function)
    return function


class WeightView:
    """The live tensors behind a graph's placeholders, and the rules for taking them as weights.

    Args:
        module: a graph as Dynamo gives it, every parameter and buffer a placeholder.
        inputs: the placeholders' values: live Parameters, and whatever else.
        grad: whether gradients are enabled where the graph will run.
        device: type of the device that weights have to be on; None where any will do.
        names: names of the model's tensors, where the model is known; else Dynamo's count.
    """

    def __init__(
        self,
        module: GraphModule,
        inputs: Sequence[Any],
        *,
        grad: bool,
        device: str | None = "cpu",
        names: Names | None = None,
    ) -> None:
        self.grad = grad
        self.device = device
        self._names = names or {}
        self._arguments = tuple(inputs)
        self._values: dict[Node, tuple[int, Any]] = {}
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        for index, (node, value) in enumerate(zip(placeholders, inputs, strict=True)):
            self._values[node] = (index, value)
        self._uses: dict[tuple[Node, Node], tuple[Any, Use]] = {}
        self._scopes, self._ambient = scopes(module), ambient_scope()

    def is_function(self, node: Node) -> bool:
        """Whether a node calls a pure function of weights, which have their places in the call."""
        return is_weight_function(node)

    def is_declared(self, node: Node) -> bool:
        """Whether it calls a `weight_function`, or a function of what one returns."""
        left, seen = [node], set[Node]()
        while left:
            node = left.pop()
            if node in seen or not self.is_function(node):
                continue
            if hasattr(node.target, "sparsecompile_lossy"):
                return True
            seen.add(node)
            left += node.all_input_nodes
        return False

    def is_weight(self, node: object) -> bool:
        """Whether a node is a parameter of the model, or a pure function of some."""
        return isinstance(node, Node) and bool(self._roots(node))

    def _roots(
        self,
        weight: Node,
        made_of: Callable[[Node], list[Node]] = lambda node: node.all_input_nodes,
    ) -> tuple[Node, ...]:
        """Placeholders of the parameters that it is made of, in order; none where it is no weight.

        What it is made of beside them is made of nothing, such as the places that weights go to.
        """
        # No recursion: what models compute in thousands of steps is looked at, too.
        found, seen, left = [], set(), [weight]
        while left:
            node = left.pop()
            if node in seen:
                continue
            seen.add(node)
            if node.op == "placeholder" and self._is_own(node):
                found.append(node)
            elif node.op != "placeholder" and self.is_function(node):
                left.extend(reversed(made_of(node)))
            else:
                return ()
        return tuple(found)

    def _is_own(self, given: Node) -> bool:
        return isinstance(self.given(given), torch.nn.Parameter) or self._has_name(given)

    def given(self, node: Any) -> Any:
        """What a placeholder stands for; None for any other node."""
        return self._values.get(node, (0, None))[1]

    def parameters(self) -> Iterator[tuple[Node, Tensor]]:
        """Placeholders of parameters, and these."""
        for node, (_, tensor) in self._values.items():
            if isinstance(tensor, torch.nn.Parameter) and not is_fake(tensor):
                yield node, tensor

    def name(self, node: Node) -> str:
        """Fully qualified name of the parameter behind a placeholder, else the node's own."""
        return self._aliases(node)[0]

    def _aliases(self, node: Node) -> tuple[str, ...]:
        value = self.given(node)
        return self._names.get(id(value)) or (_source_name(node) or node.name,)

    def aliases(self, weight: Node) -> tuple[str, ...]:
        """All names that the model has for the parameters that a weight is made of."""
        roots = self._roots(weight, _made_of)
        found = (name for root in roots for name in self._aliases(root))
        return tuple(dict.fromkeys(found))

    def _has_name(self, node: Node) -> bool:
        """Whether a placeholder is the model's own, and no input of it."""
        if node not in self._values:
            # What lowering put in for a weight.
            return False
        return id(self._values[node][1]) in self._names or _source_name(node) is not None

    def own_names(self) -> dict[int, tuple[str, ...]]:
        """Names of the model's own tensors by their places among the arguments."""
        own = [(index, node) for node, (index, _) in self._values.items()]
        return {index: self._aliases(node) for index, node in own if self.is_weight(node)}

    def names(self, weight: object) -> str:
        """Names of the parameters that a weight is made of, for the report."""
        roots = self._roots(weight, _made_of) if isinstance(weight, Node) else ()
        return " x ".join(dict.fromkeys(map(self.name, roots))) or str(weight)

    def binding(self, node: Any) -> Binding:
        """The weight as an expression of live tensors.

        Raises:
            Reject: it is not a frozen function of the model's own weights.
        """
        if self._ambient:
            raise Reject(self._ambient)
        found = self._binding(node)
        if not found.leaves():
            raise Reject(
                f"the weight is computed in the graph by {describe(node)}, of no parameter"
            )
        return found

    def live(self, binding: Binding) -> tuple[Tensor, ...]:
        """The live tensors of a binding, in the order of its leaves."""
        return live(binding, self._arguments)

    def scope(self, node: Node) -> str:
        """Why a call here is something else than it says (autocast, torch.func), or empty."""
        around = (s.reason for s in self._scopes if s.begin < node and not s.end < node)
        return next(around, self._ambient)

    def stored(self, weight: Any) -> Format | Expression[Format] | None:
        """How a weight, or what it is made of, is packed in the model; None where it is dense.

        Raises:
            Reject: it is not a frozen function of the model's own weights.
        """
        for tensor in self.live(self.binding(weight)):
            if isinstance(tensor, PackedTensor):
                return tensor.stored.format
        return None

    def _binding(self, node: Any, reader: Node | None = None) -> Binding:
        if not isinstance(node, Node):
            raise Reject(f"the weight is {node!r}, not a tensor of the graph")
        self._check_users(node)
        if node.op == "placeholder":
            return self._leaf(node, reader)
        if not self.is_function(node):
            raise Reject(f"the weight is computed in the graph by {describe(node)}")
        function: Any = node.target
        if isinstance(function, str):
            function = getattr(torch.Tensor, function)
        kwargs = zip(node.kwargs, self._args(tuple(node.kwargs.values()), node), strict=True)
        return Apply(function, self._args(node.args, node), tuple(sorted(kwargs)))

    def _args(self, args: Sequence[Any], reader: Node) -> tuple[Any, ...]:
        def one(arg: Any) -> Any:
            if isinstance(arg, Node):
                return self._binding(arg, reader)
            if isinstance(arg, torch.device):
                # Weights are evaluated there, wherever the graph runs.
                return torch.device("cpu")
            if isinstance(arg, slice):
                return slice(*self._args((arg.start, arg.stop, arg.step), reader))
            return self._args(arg, reader) if isinstance(arg, (tuple, list)) else arg

        return tuple(one(arg) for arg in args)

    def _leaf(self, node: Node, reader: Node | None) -> Leaf:
        index, tensor = self._values[node]
        name = self.name(node)
        if not isinstance(tensor, Tensor):
            raise Reject(f"the weight is {type(tensor).__name__}, not a tensor")
        if not isinstance(tensor, torch.nn.Parameter) and not self._has_name(node):
            raise Reject("the weight is an input of the model, not one of its parameters")
        known = type(tensor) in (Tensor, torch.nn.Parameter, PackedTensor) or is_fake(tensor)
        if not known and not (reader is not None and takes_subclasses(reader)):
            raise Reject(f"{name} is a tensor subclass, {type(tensor).__name__}")
        if tensor.layout != torch.strided:
            raise Reject(f"{name} has layout {tensor.layout}, not strided")
        if self.device is not None and tensor.device.type != self.device:
            raise Reject(f"{name} is on {tensor.device}; there are kernels for {self.device}")
        if tensor.is_inference():
            raise Reject(f"{name} was made under inference_mode: its changes cannot be noticed")
        if self.grad and tensor.requires_grad:
            raise Reject(
                f"{name} requires grad and gradients are enabled: call the model under "
                "torch.no_grad(), or freeze the parameter with requires_grad_(False)"
            )
        return Leaf(index, name)

    def _check_users(self, node: Node) -> None:
        """Return if all uses surely leave the weight as it is, those of its aliases included.

        Raises:
            Reject: one may not.
        """
        for user in node.users:
            if scope := self.scope(user):
                raise Reject(scope)
            # What is packed in the model refuses writes by itself.
            if user.op == "output" or user.target in _READERS or self._is_packed(node):
                continue
            use = self._use(user, node)
            if use is Use.MAY_WRITE:
                raise Reject(f"the weight is also used by {describe(user)}, which may change it")
            if use is Use.ALIASES:
                self._check_users(user)

    def _is_packed(self, node: Node) -> bool:
        return isinstance(self.given(node), PackedTensor)

    def _use(self, user: Node, node: Node) -> Use:
        """`use_of`, once for every call: passes ask for weights again and again."""
        if hasattr(user.target, "sparsecompile_lossy"):
            # A `weight_function` writes nothing, and may have no meaning for fake tensors.
            return Use.ALIASES
        args = (user.args, user.kwargs)
        known = self._uses.get((user, node))
        if known is None or known[0] != args:
            known = self._uses[user, node] = (args, use_of(user, node))
        return known[1]


def _made_of(weight: Node) -> list[Node]:
    """What a function of weights makes its result of; others may say which channels are left."""
    return weight.all_input_nodes[: 1 if weight.target is take_channels else None]


def _source_name(node: Node) -> str | None:
    """Dotted name from Dynamo's source `L['self']._modules['layers']._parameters['weight']`."""
    source = getattr(node, "_dynamo_source", None)
    name = getattr(source, "name", None)
    text = str(name() if callable(name) else name)
    if "_parameters" not in text and "_buffers" not in text:
        return None
    _, *keys = re.findall(r"\['([^']*)'\]", text)
    return ".".join(key for key in keys if key not in _CONTAINERS)


def called(node: Node) -> str:
    """Name of what a node calls."""
    target = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def describe(node: Node) -> str:
    """What a node calls, and its own name."""
    return f"{called(node)} ({node.name})"
