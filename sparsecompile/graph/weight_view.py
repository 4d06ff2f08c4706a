"""WeightView: which nodes of a graph are frozen functions of the model's live weights."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node, map_arg

from sparsecompile.errors import Reject
from sparsecompile.formats.expression import Expression
from sparsecompile.formats.packed import Format
from sparsecompile.graph.compiled_model import Names
from sparsecompile.graph.fake_calls import Use, use_of
from sparsecompile.graph.transformed_regions import ambient_scope, scopes
from sparsecompile.weights.channels import take_channels
from sparsecompile.weights.expression import Apply, Binding, Leaf, is_fake, live
from sparsecompile.weights.packed_tensor import PackedTensor
from sparsecompile.weights.parts import part, product, product_bias

Function = TypeVar("Function", bound=Callable[..., Tensor])

_FUNCTIONS: set[Any] = {
    torch.t,
    torch.mul,
    torch.cat,
    torch.transpose,
    operator.mul,
    # What integers, scales and zero points are made a weight with, and how training rounds one.
    torch.sub,
    operator.sub,
    torch.fake_quantize_per_tensor_affine,
    torch.fake_quantize_per_channel_affine,
}
_METHODS = {
    *("t", "to", "mul", "transpose", "type_as", "float", "contiguous"),
    *("sub", "view", "reshape", "unsqueeze", "half", "bfloat16"),
}
_OPS = "quantized_decomposed.dequantize_"
"""With which exported models do it: these ops are there once torch's quantisation is imported."""
_READERS: set[Any] = set()
_CONTAINERS = ("_modules", "_parameters", "_buffers")


def weight_function(*, lossy: str = "") -> Callable[[Function], Function]:
    """Declare a pure function of weights: it is evaluated when the weight is packed, not at a call.

    It may read no activation and write nothing; `prune_weight` is one.

    Args:
        lossy: where the result stands for something else than the weight, what reports call the
            change, such as `prune`.
    """

    def declare(function: Function) -> Function:
        function.sparsecompile_lossy = lossy  # type: ignore[attr-defined]
        _FUNCTIONS.add(function)
        return function

    return declare


for _function in (part, product, product_bias, take_channels):
    weight_function()(_function)


def weight_reader(function: Function) -> Function:
    """Declare a function that reads a weight and neither changes nor returns it.

    For those that most weights are read by, and those that cannot be run on fake tensors, where
    that would be seen.
    """
    _READERS.add(function)
    return function


def _tensors_by_name(node: Node) -> list[Node]:
    """What a call takes by keyword, of the graph's tensors."""
    found: list[Node] = []
    map_arg(node.kwargs, found.append)
    return found


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
        if _tensors_by_name(node):
            return False
        if node.op == "call_method":
            return node.target in _METHODS
        if node.op != "call_function":
            return False
        return node.target in _FUNCTIONS or str(node.target).startswith(_OPS)

    def is_declared(self, node: Node) -> bool:
        """Whether it calls a `weight_function`, or a function of what one returns."""
        if not self.is_function(node):
            return False
        declared = hasattr(node.target, "sparsecompile_lossy")
        return declared or any(map(self.is_declared, node.all_input_nodes))

    def is_weight(self, node: object) -> bool:
        """Whether a node is a parameter of the model, or a pure function of some."""
        if not isinstance(node, Node):
            return False
        if node.op == "placeholder":
            value = self._values.get(node, (0, None))[1]
            return isinstance(value, torch.nn.Parameter) or self._has_name(node)
        return self.is_function(node) and all(map(self.is_weight, node.all_input_nodes))

    def parameters(self) -> Iterator[tuple[Node, Tensor]]:
        """Placeholders of parameters, and these."""
        for node, (_, tensor) in self._values.items():
            if isinstance(tensor, torch.nn.Parameter) and not is_fake(tensor):
                yield node, tensor

    def name(self, node: Node) -> str:
        """Fully qualified name of the parameter behind a placeholder, else the node's own."""
        return self._aliases(node)[0]

    def _aliases(self, node: Node) -> tuple[str, ...]:
        value = self._values.get(node, (0, None))[1]
        return self._names.get(id(value)) or (_source_name(node) or node.name,)

    def aliases(self, weight: Node) -> tuple[str, ...]:
        """All names that the model has for the parameters that a weight is made of."""
        if weight.op == "placeholder":
            return self._aliases(weight)
        found = (name for node in _made_of(weight) for name in self.aliases(node))
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
        if not isinstance(weight, Node) or not self.is_weight(weight):
            return str(weight)
        if weight.op == "placeholder":
            return self.name(weight)
        return " x ".join(dict.fromkeys(self.names(node) for node in _made_of(weight)))

    def binding(self, node: Any) -> Binding:
        """The weight as an expression of live tensors.

        Raises:
            Reject: it is not a frozen function of the model's own weights.
        """
        if self._ambient:
            raise Reject(self._ambient)
        return self._binding(node)

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

    def _binding(self, node: Any) -> Binding:
        if not isinstance(node, Node):
            raise Reject(f"the weight is {node!r}, not a tensor of the graph")
        self._check_users(node)
        if node.op == "placeholder":
            return self._leaf(node)
        if not self.is_function(node):
            raise Reject(f"the weight is computed in the graph by {describe(node)}")
        function: Any = node.target
        if isinstance(function, str):
            function = getattr(torch.Tensor, function)
        return Apply(function, self._args(node.args), tuple(sorted(node.kwargs.items())))

    def _args(self, args: Sequence[Any]) -> tuple[Any, ...]:
        def one(arg: Any) -> Any:
            if isinstance(arg, Node):
                return self._binding(arg)
            return self._args(arg) if isinstance(arg, (tuple, list)) else arg

        return tuple(one(arg) for arg in args)

    def _leaf(self, node: Node) -> Leaf:
        index, tensor = self._values[node]
        name = self.name(node)
        if not isinstance(tensor, Tensor):
            raise Reject(f"the weight is {type(tensor).__name__}, not a tensor")
        if not isinstance(tensor, torch.nn.Parameter) and not self._has_name(node):
            raise Reject("the weight is an input of the model, not one of its parameters")
        known = (Tensor, torch.nn.Parameter, PackedTensor)
        if type(tensor) not in known and not is_fake(tensor):
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
        return isinstance(self._values.get(node, (0, None))[1], PackedTensor)

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
