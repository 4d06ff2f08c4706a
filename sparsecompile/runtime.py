"""CompiledGraph: packed weights attached to a graph, checked at every call."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.ops import HEADER_BYTES
from sparsecompile.packing import pack_binding, stored_parts
from sparsecompile.stored import Part
from sparsecompile.template import Kernel
from sparsecompile.weights import PACK_CACHE, Binding, Fresh, beside


@dataclass(frozen=True, eq=False)
class Layout:
    """A weight as a kernel reads it.

    Attributes:
        data: `[bytes]` uint8.
        header: what graphs take. On CPUs its first `HEADER_BYTES` as a tensor of their own over the
            same storage, so that a weight that needs more bytes after an update fits them too; on
            GPUs all of it, since CUDA graphs may copy what they are given.
    """

    data: Tensor
    header: Tensor

    @classmethod
    def of(cls, data: Tensor) -> Layout:
        """From what `Template.prepack` returns."""
        if data.device.type != "cpu":
            return cls(data, data)
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

        Weights that are packed in the model keep this layout in place of what it is made of.

        Raises:
            Reject: the weight no longer has the kernel's format.
        """
        kernel = self.kernel
        purpose = ("layout", kernel.spec.format, kernel.layout)

        def make() -> Layout:
            layout = kernel.prepack(pack_binding(self.binding, tensors, kernel.spec.format))
            first = 0
            for part in stored_parts(self.binding, tensors) if kernel.device == "cpu" else ():
                part.adopt(Part(layout, kernel.key, first))
                first += part.shape[0]
            return Layout.of(beside(layout, tensors[0]))

        return PACK_CACHE.get(self.binding, tensors, purpose, make)


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
