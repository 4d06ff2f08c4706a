"""Chain: linears of a graph that can be one region, and what is computed between them."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.fx import Node

from sparsecompile.errors import Reject
from sparsecompile.graph.edit import Edit, origins
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.ops import LINEAR_SIGNATURE
from sparsecompile.kernels.region import (
    MAX_INPUTS,
    MAX_OUTPUTS,
    Input,
    Region,
    Stage,
    arguments,
    remember,
)
from sparsecompile.kernels.rows import Columns, Constant, Expression, renumbered
from sparsecompile.kernels.template import Source
from sparsecompile.lowering.row_steps import columns_of, expression_of


@dataclass(frozen=True)
class LinearCall:
    """A call of the op `linear` in a graph, and its kernel."""

    node: Node
    kernel: Kernel[Any]

    def given(self, name: str) -> Any:
        """An argument."""
        return self.node.args[list(LINEAR_SIGNATURE.parameters).index(name)]


@dataclass
class Chain:
    """Linears, with what is computed between them."""

    edit: Edit
    calls: list[LinearCall] = field(default_factory=list)
    inputs: dict[Node, Input] = field(default_factory=dict)
    values: dict[Node, int] = field(default_factory=dict)
    """Nodes by the numbers of values, those of inputs not counted."""
    rows: list[list[tuple[Node, Expression]]] = field(default_factory=list)
    """What is computed before each linear."""
    seen: dict[Node, tuple[int, Expression]] = field(default_factory=dict)
    """Nodes in between, with the stage that needed them first and what they are."""

    def copy(self) -> Chain:
        """As it is now."""
        return replace(
            self,
            calls=[*self.calls],
            inputs={**self.inputs},
            values={**self.values},
            rows=[[*each] for each in self.rows],
            seen={**self.seen},
        )

    def take(self, call: LinearCall) -> None:
        """Go on with a linear.

        Raises:
            Reject: it cannot be the next stage.
        """
        edit, node, number = self.edit, call.node, len(self.calls)
        x = edit.value(call.given("x"))
        m, shape = math.prod(x.shape[:-1]), edit.value(node).shape
        if not isinstance(m, int) or not all(isinstance(size, int) for size in shape):
            raise Reject("how many rows there are varies from call to call")
        part = call.kernel.range_at(m)
        if part.dense or not 0 < m <= part.stage_m:
            raise Reject(f"{part.symbol or 'the dense linear'} is no stage for {m} rows")
        if self.calls:
            first = self.calls[0].node
            if tuple(edit.value(first).shape[:-1]) != tuple(shape[:-1]):
                raise Reject("it has other rows than the linear before it")
            if x.dtype != edit.value(first).dtype:
                raise Reject(f"it is {x.dtype}, the linear before it {edit.value(first).dtype}")
            writer = edit.writes_between(self.calls[-1].node, node)
            if writer is not None:
                raise Reject(f"{writer.name} writes in place in between")
        self.rows.append([])
        for name in ("x", "operand0", "operand1"):
            if (given := call.given(name)) is not None:
                self._materialise(given, number)
        if self.calls and not self._depends(call.given("x")):
            raise Reject("its input is not made of the linear before it")
        for name in ("weight", "bias", "dense0", "dense1", "dense2"):
            given = call.given(name)
            if given is None:
                continue
            if self._depends(given):
                raise Reject(f"its {name} is computed of rows")
            self._input(given, vector=name == "bias", whole=name != "bias")
        if len(self.inputs) > MAX_INPUTS:
            raise Reject(f"it would read more than {MAX_INPUTS} tensors")
        self.values[node] = len(self.values)
        self.calls.append(call)

    def outputs(self) -> list[Node]:
        """What others read: linears, and what is computed between them."""
        mine = {*self.values, *self.seen}
        return [node for node in mine if any(user not in mine for user in node.users)]

    def can_end(self) -> bool:
        """Whether what others read can be returned, and is read after the last linear."""
        last, outputs = self.calls[-1].node, self.outputs()
        mine = {*self.values, *self.seen}
        users = [user for node in outputs for user in node.users if user not in mine]
        return len(outputs) <= MAX_OUTPUTS and all(last < user for user in users)

    def close(self) -> Source:
        """Put the region in the place of its last linear; what was built for it.

        Raises:
            Reject: the device has no such regions.
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        edit, last = self.edit, self.calls[-1].node
        outputs = self.outputs()
        for node in outputs:
            if node not in self.values:
                stage, expression = self.seen[node]
                self._keep(node, stage, expression)
        region = self._region(outputs)
        key, source = edit.device.codegen.region(region, edit.device.target)
        remember(key, region)
        args = arguments(region, tuple(self.inputs), key)
        names = tuple(name for call in self.calls for name in origins(call.node))
        results = [edit.value(node) for node in outputs]
        empty = edit.value(last).new_empty((0,))
        values = (*results, *[empty] * (MAX_OUTPUTS - len(results)))
        call = edit.call(
            torch.ops.sparsecompile.region.default, args, before=last, value=values, origins=names
        )
        for index, (node, value) in enumerate(zip(outputs, results, strict=True)):
            part = edit.call(operator.getitem, (call, index), before=last, value=value)
            part.meta["sparsecompile_origins"] = origins(node)
            node.replace_all_uses_with(part)
        edit.replaced("join_regions", last)
        edit.discard([call.node for call in reversed(self.calls)])
        edit.discard([*reversed(self.seen)])
        return source

    def _region(self, outputs: Sequence[Node]) -> Region:
        base = len(self.inputs)
        numbers = {node: i for i, node in enumerate(self.inputs)}
        numbers |= {node: base + value for node, value in self.values.items()}

        def source(node: Any) -> int:
            found = numbers.get(node)
            return found if found is not None else numbers[self._alias(node)]

        stages = []
        for call, rows in zip(self.calls, self.rows, strict=True):
            bias = call.given("bias")
            operands = (call.given(name) for name in ("operand0", "operand1"))
            dense = (call.given(name) for name in ("dense0", "dense1", "dense2"))
            stages.append(
                Stage(
                    rows=tuple((numbers[node], renumbered(each, base)) for node, each in rows),
                    call=call.node.args[-1],  # type: ignore[arg-type]
                    n=call.given("n"),
                    x=source(call.given("x")),
                    weight=source(call.given("weight")),
                    bias=None if bias is None else source(bias),
                    operands=tuple(source(each) for each in operands if each is not None),
                    dense=tuple(source(each) for each in dense if each is not None),
                    y=numbers[call.node],
                )
            )
        widths = [0] * len(self.values)
        for node, value in self.values.items():
            widths[value] = int(self.edit.value(node).shape[-1])
        return Region(
            dtype=self.edit.value(self.calls[0].node).dtype,
            inputs=tuple(self.inputs.values()),
            widths=tuple(widths),
            stages=tuple(stages),
            outputs=tuple(numbers[node] for node in outputs),
            like=numbers[self.calls[0].given("x")],
        )

    def _materialise(self, node: Node, stage: int) -> None:
        """Have a value, or an input, for what a linear reads as it is."""
        if not self._depends(node):
            self._input(node)
            return
        expression = self._read(node, stage)
        if self._alias(node) not in self.values:
            first, expression = self.seen.get(node, (stage, expression))
            self._keep(node, first, expression)

    def _keep(self, node: Node, stage: int, expression: Expression) -> None:
        value, first = self.edit.value(node), self.edit.value(self.calls[0].node)
        if tuple(value.shape[:-1]) != tuple(first.shape[:-1]) or value.dtype != first.dtype:
            raise Reject(f"{node.name} has another shape or dtype than rows have")
        self.values[node] = len(self.values)
        self.rows[stage].append((node, expression))

    def _alias(self, node: Node) -> Node:
        """What a node is another name of, if it is one."""
        found = self.seen.get(node)
        if found is None or not isinstance(found[1], Columns) or found[1].first:
            return node
        numbers = {_value(number): each for each, number in self.values.items()}
        source = numbers.get(found[1].source)
        width = self.edit.value(node).shape[-1]
        if source is None or self.edit.value(source).shape[-1] != width:
            return node
        return source

    def _depends(self, node: Any) -> bool:
        """Whether a node is computed of the chain's linears."""
        if not isinstance(node, Node) or not self.calls:
            return False
        first, known = self.calls[0].node, dict[Node, bool]()

        def depends(each: Node) -> bool:
            if each in self.values or each in self.seen:
                return True
            if each.op == "placeholder" or not first < each:
                return False
            if each not in known:
                known[each] = False
                known[each] = any(map(depends, each.all_input_nodes))
            return known[each]

        return depends(node)

    def _read(self, node: Any, stage: int) -> Expression:
        """The expression of something, for a stage."""
        if isinstance(node, (int, float)) and not isinstance(node, bool):
            return Constant(float(node))
        if not isinstance(node, Node):
            raise Reject(f"{node!r} is no tensor")
        if node in self.values:
            return Columns(_value(self.values[node]))
        if not self._depends(node):
            return self._outside(node)
        if node in self.seen:
            first, expression = self.seen[node]
            if first < stage and not isinstance(expression, Columns):
                self._keep(node, first, expression)
                return Columns(_value(self.values[node]))
            return expression
        if reason := self.edit.weights.scope(node):
            raise Reject(reason)
        expression = expression_of(node, lambda each: self._read(each, stage), self.edit.value)
        self._check_rows(node)
        self.seen[node] = (stage, expression)
        for each in node.all_input_nodes:
            # Nodes that have no value of their own, such as `split`.
            if each not in self.values and self._depends(each) and each not in self.seen:
                self.seen[each] = (stage, expression)
        return expression

    def _check_rows(self, node: Node) -> None:
        value, first = self.edit.value(node), self.edit.value(self.calls[0].node)
        if value.dtype not in (first.dtype, torch.float32):
            raise Reject(f"{node.name} is {value.dtype}")
        if math.prod(value.shape[:-1]) != math.prod(first.shape[:-1]):
            raise Reject(f"{node.name} has another number of rows")

    def _outside(self, node: Node) -> Expression:
        """Something that is there before the chain."""
        value, first = self.edit.value(node), self.edit.value(self.calls[0].node)
        width = columns_of(value)
        is_rows = tuple(value.shape[:-1]) == tuple(first.shape[:-1]) and value.dim() > 1
        if is_rows and value.dtype == first.dtype:
            return Columns(self._input(node))
        if value.numel() == width > 1 and value.dtype.is_floating_point:
            return Columns(self._input(node, vector=True), is_vector=True)
        raise Reject(f"{node.name} is neither rows nor a vector that they share")

    def _input(self, node: Node, *, vector: bool = False, whole: bool = False) -> int:
        """The number of an input; `whole` is a layout or a dense weight."""
        made = Input()
        if not whole:
            value = self.edit.value(node)
            made = Input(value.dtype, int(value.shape[-1]), vector)
            if value.dtype not in (torch.float32, torch.bfloat16, torch.float16):
                raise Reject(f"{node.name} is {value.dtype}")
        if self.inputs.setdefault(node, made) != made:
            raise Reject(f"{node.name} is read in two ways")
        return list(self.inputs).index(node)


def _value(number: int) -> int:
    """A value's number in expressions while the number of inputs is not known."""
    return -1 - number
