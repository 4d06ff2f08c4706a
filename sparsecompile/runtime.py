"""CompiledGraph: packed weights attached to a graph, checked at every call."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn import functional as F

from sparsecompile.epilogue import STEPS
from sparsecompile.errors import Reject
from sparsecompile.graph import Edit
from sparsecompile.ops import HEADER_BYTES
from sparsecompile.packed_node import format_of, origins
from sparsecompile.pattern import Match
from sparsecompile.spec import KernelSpec
from sparsecompile.template import Device, Extern, Kernel
from sparsecompile.weights import PACK_CACHE, Binding, Fresh, live


@dataclass(frozen=True, eq=False)
class Layout:
    """A weight as a kernel reads it.

    Attributes:
        data: `[bytes]` uint8.
        header: its first `HEADER_BYTES` as a tensor of their own over the same storage. Graphs
            take this one, so that a weight that needs more bytes after an update fits them too.
    """

    data: Tensor
    header: Tensor

    @classmethod
    def of(cls, data: Tensor) -> Layout:
        """From what `Template.prepack` returns."""
        storage = data.untyped_storage()
        empty = torch.empty(0, dtype=torch.uint8)
        return cls(data, empty.set_(storage, data.storage_offset(), (HEADER_BYTES,), (1,)))


@dataclass(frozen=True, eq=False)
class Slot:
    """A packed weight of a graph."""

    binding: Binding
    kernel: Kernel

    def layout(self, tensors: Sequence[Tensor]) -> Fresh[Layout]:
        """The layout for the live tensors of the binding's leaves, packed now unless it is fresh.

        Raises:
            Reject: the weight no longer has the kernel's format.
        """
        kernel = self.kernel
        purpose = ("layout", kernel.spec.format, kernel.template.name, kernel.schedule)

        def make(weight: Tensor) -> Layout:
            return Layout.of(kernel.prepack(kernel.spec.format.pack(weight)))

        return PACK_CACHE.get(self.binding, tensors, purpose, make)


@dataclass(frozen=True, eq=False)
class Lowered:
    """One packed node that became a call of the op.

    Attributes:
        origins: names of the linears it does the work of.
        kernel: its kernel.
        rows: out features.
        nbytes: bytes of its layout.
    """

    origins: tuple[str, ...]
    kernel: Kernel
    rows: int
    nbytes: int


def lower_packed(edit: Edit) -> tuple[list[Slot], list[Lowered]]:
    """Give every packed node its kernel: `packed_linear(...) -> sparsecompile::linear(...)`.

    Where a library call is chosen the node becomes dense again. Layouts become placeholders after
    the graph's own, one for each slot, in order.

    Raises:
        BuildError: the compiler is missing or failed.
        CacheError: the cache folder cannot be used.
        Reject: no template supports a spec.
    """
    kernels = _lower_all([_spec(match, edit) for match in edit.packed_nodes()], edit.device)
    slots: dict[Hashable, tuple[Slot, Node, int]] = {}
    lowered = []
    for match in edit.packed_nodes():
        kernel = kernels[_spec(match, edit)]
        if isinstance(kernel, Extern):
            edit.rejected("lower", match.node, f"{kernel.name} was chosen")
            _restore_dense(match, edit)
            continue
        key = (match["weight"], match["format"], kernel.template.name, kernel.schedule)
        if key not in slots:
            slot = Slot(edit.binding(match["weight"]), kernel)
            nbytes = slot.layout(live(slot.binding)).value.data.numel()
            slots[key] = slot, _placeholder(edit.module, f"packed_{len(slots)}"), nbytes
        _, weight, nbytes = slots[key]
        rows = edit.value(match["weight"]).shape[0]
        first, second = (*match["operands"], None, None)[:2]
        args = (match["x"], weight, match["bias"], first, second, rows, kernel.key)
        op = torch.ops.sparsecompile.linear.default
        names = origins(match.node)
        value = edit.value(match.node)
        new = edit.call(op, args, before=match.node, value=value, origins=names)
        edit.replace(match.node, new)
        lowered.append(Lowered(names, kernel, rows, nbytes))
    edit.check()
    return [slot for slot, _, _ in slots.values()], lowered


def _spec(match: Match, edit: Edit) -> KernelSpec:
    dtype = edit.value(match["x"]).dtype
    return KernelSpec(format_of(match["format"]), dtype, match["epilogue"], match["activations"])


def _lower_all(specs: Iterable[KernelSpec], device: Device) -> dict[KernelSpec, Kernel | Extern]:
    """Kernels of all distinct specs, built side by side."""
    distinct = list(dict.fromkeys(specs))
    with ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads())) as pool:
        return dict(zip(distinct, pool.map(device.lower, distinct), strict=True))


def _restore_dense(match: Match, edit: Edit) -> None:
    """`packed_linear(...) -> linear(...)` and the epilogue's steps."""
    node = match.node
    new = edit.call(F.linear, (match["x"], match["weight"], match["bias"]), before=node)
    operands = iter(match["operands"])
    for name in match["epilogue"]:
        step = STEPS[name]
        args = (new, next(operands)) if step.has_operand else (new,)
        new = edit.call(step.apply, args, before=node)
    edit.replace(node, new)


def _placeholder(module: GraphModule, name: str) -> Node:
    """A new last placeholder."""
    last = [node for node in module.graph.nodes if node.op == "placeholder"][-1]
    with module.graph.inserting_after(last):
        node = module.graph.placeholder(name)
    # AOTAutograd asks every placeholder for its source, and takes None for "not Dynamo's".
    node._dynamo_source = None
    node.meta["tensor_dict"] = {"_dynamo_static_input_type": "unguarded"}
    return node


@dataclass(frozen=True, eq=False)
class _State:
    """The live tensors at the last look, and the layouts for them; None: dense has to run."""

    tensors: Sequence[weakref.ref[Tensor]]
    versions: Sequence[int]
    pointers: Sequence[int]
    epoch: int
    headers: Sequence[Tensor] | None


class CompiledGraph:
    """What Dynamo calls: the packed graph while its weights are fresh.

    At every call the live tensors are compared with what was packed (same object, version and
    address). Where one differs its weight is packed again; where it no longer fits its format the
    dense original runs, until it fits again. One graph may serve several sets of weights: Dynamo
    guards on the structure of modules, so that the layers of a model compiled one by one share it.

    Args:
        run: the compiled packed graph; takes the kept arguments, then the slots' headers.
        keep: which of Dynamo's arguments it takes.
        slots: the packed weights.
        dense: makes the compiled dense original, when it is first needed.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        keep: Sequence[int],
        slots: Sequence[Slot],
        dense: Callable[[], Callable[..., Any]],
    ) -> None:
        self._run = run
        self._keep = tuple(keep)
        self._slots = tuple(slots)
        self._make_dense = dense
        self._dense: Callable[..., Any] | None = None
        self._lock = threading.Lock()
        leaves = dict.fromkeys(leaf.index for slot in slots for leaf in slot.binding.leaves())
        self._leaves = tuple(leaves)
        self._states: dict[int, _State] = {}

    def __call__(self, *args: Any) -> Any:
        """Run the graph on Dynamo's arguments."""
        state = self._states.get(id(args[self._leaves[0]]))
        if state is None or not self._is_fresh(state, args):
            state = self._renew(args)
        if state.headers is None:
            return self._run_dense(args)
        return self._run(*[args[i] for i in self._keep], *state.headers)

    def _is_fresh(self, state: _State, args: Sequence[Any]) -> bool:
        tensors = [args[i] for i in self._leaves]
        return (
            state.epoch == PACK_CACHE.epoch
            and [tensor._version for tensor in tensors] == state.versions
            and [tensor.data_ptr() for tensor in tensors] == state.pointers
            and all(ref() is tensor for ref, tensor in zip(state.tensors, tensors, strict=True))
        )

    def _renew(self, args: Sequence[Any]) -> _State:
        """Pack what changed, or note that the dense original has to run."""
        with self._lock:
            epoch = PACK_CACHE.epoch
            tensors = [args[i] for i in self._leaves]
            # Stamped before packing: a write in between is noticed at the next call.
            versions = [tensor._version for tensor in tensors]
            pointers = [tensor.data_ptr() for tensor in tensors]
            headers: list[Tensor] | None = []
            try:
                for slot in self._slots:
                    own = [args[leaf.index] for leaf in slot.binding.leaves()]
                    headers.append(slot.layout(own).value.header)  # type: ignore[union-attr]
            except Reject:
                headers = None
            refs = [weakref.ref(tensor) for tensor in tensors]
            alive = {k: s for k, s in self._states.items() if s.tensors[0]() is not None}
            state = _State(refs, versions, pointers, epoch, headers)
            self._states = {**alive, id(tensors[0]): state}
            return state

    def _run_dense(self, args: Sequence[Any]) -> Any:
        if self._dense is None:
            self._dense = self._make_dense()
        return self._dense(*args)
