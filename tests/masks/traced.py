"""Graphs of masks, of functions of sizes and tensors, without Dynamo, which takes a second each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Interpreter, Node, symbolic_trace

from sparsecompile.operators.attention.recognise.ends import Ends
from sparsecompile.operators.attention.recognise.recognise import recognise
from sparsecompile.operators.attention.recognise.recognised import Recognised


@dataclass(frozen=True)
class Traced:
    """A graph whose output is a mask, with values of its placeholders."""

    module: GraphModule
    inputs: tuple[Any, ...]

    @property
    def mask(self) -> Node:
        (output,) = (node for node in self.module.graph.nodes if node.op == "output")
        return output.args[0]

    def recognise(self) -> Recognised:
        return recognise(self.mask)

    def values(self) -> dict[Node, Any]:
        """Of every node."""
        return _Values(self.module).run_all(self.inputs)

    def ends(self, found: Recognised) -> Ends[Tensor]:
        """Of the values of the inputs."""
        values = self.values()
        shape = values[self.mask].shape
        sizes = shape[-2:] if len(shape) > 1 else (1, shape[0])
        return found.evaluate({leaf: values[leaf] for leaf in found.leaves}, *sizes)


def traced(function: Callable[..., Tensor], *inputs: Any) -> Traced:
    """The graph of a function; what is computed of constants alone is a constant in it."""
    module = symbolic_trace(function)
    mode = FakeTensorMode()
    fakes = [mode.from_tensor(each) if isinstance(each, Tensor) else each for each in inputs]
    with mode:
        for node, value in _Values(module).run_all(fakes).items():
            node.meta["example_value"] = value
    return Traced(module, inputs)


class _Values(Interpreter):
    def run_all(self, inputs: Any) -> dict[Node, Any]:
        self.found: dict[Node, Any] = {}
        self.run(*inputs)
        return self.found

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.op != "output":
            self.found[n] = value
        return value
