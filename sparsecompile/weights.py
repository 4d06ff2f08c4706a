"""Binding: which live Parameters a packed weight came from; PackCache: one packed copy of each."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakIdKeyDictionary

from sparsecompile.errors import Reject

T = TypeVar("T")


@dataclass(frozen=True)
class Leaf:
    """A live Parameter or buffer of the model.

    Attributes:
        index: its place among Dynamo's arguments.
        name: its fully qualified name in the model, such as `layers.0.mlp.up_proj.weight`.
        tensor: the live tensor, by weak reference.
    """

    index: int
    name: str
    tensor: weakref.ref[Tensor] = field(compare=False)

    def evaluate(self, arguments: Mapping[int, Tensor]) -> Tensor:
        """The live tensor, on the CPU.

        Raises:
            Reject: it is fake and nothing is known of its values.
        """
        tensor = arguments[self.index]
        if not is_fake(tensor):
            return tensor.detach().cpu()
        # As under torch's `propagate_real_tensors`.
        values = getattr(tensor, "real_tensor", None)
        if values is None:
            raise Reject(f"{self.name} is a fake tensor without values")
        return values.detach().cpu()  # type: ignore[no-any-return]

    def leaves(self) -> tuple[Leaf, ...]:
        """Itself."""
        return (self,)

    def __str__(self) -> str:
        """The name."""
        return self.name


@dataclass(frozen=True)
class Apply:
    """A pure function of weights, such as a transposition, a mask, a concatenation, a pruning."""

    function: Callable[..., Tensor]
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()

    def evaluate(self, arguments: Mapping[int, Tensor]) -> Tensor:
        """Its value for the live tensors, by Dynamo's argument index."""
        return self.function(*_values(self.args, arguments), **dict(self.kwargs))

    def leaves(self) -> tuple[Leaf, ...]:
        """Every live tensor it reads, once each, in order."""
        found: dict[Leaf, None] = {}

        def walk(arg: Any) -> None:
            if isinstance(arg, tuple):
                for item in arg:
                    walk(item)
            elif isinstance(arg, (Leaf, Apply)):
                found.update(dict.fromkeys(arg.leaves()))

        walk(self.args)
        return tuple(found)

    def __str__(self) -> str:
        """`t(layers.0.weight)`."""
        name = getattr(self.function, "__name__", str(self.function))
        flat = ", ".join(
            "(" + ", ".join(map(str, arg)) + ")" if isinstance(arg, tuple) else str(arg)
            for arg in self.args
        )
        return f"{name}({flat})"


def _values(args: tuple[Any, ...], arguments: Mapping[int, Tensor]) -> tuple[Any, ...]:
    # No closure that calls itself: such a cycle would keep the tensors until it is collected.
    return tuple(
        _values(arg, arguments)
        if isinstance(arg, tuple)
        else arg.evaluate(arguments)
        if isinstance(arg, (Leaf, Apply))
        else arg
        for arg in args
    )


def lossy(binding: Binding) -> str:
    """What changes the weight on request, such as `prune 2:4`; empty if nothing does."""
    if isinstance(binding, Leaf):
        return ""
    inner = ", ".join(lossy(x) for x in binding.args if isinstance(x, (Leaf, Apply)) and lossy(x))
    what = getattr(binding.function, "sparsecompile_lossy", "")
    if not what:
        return inner
    options = [str(x) for x in binding.args if not isinstance(x, (Leaf, Apply))]
    return f"{inner}, " * bool(inner) + " ".join((what, *options))


Binding = Leaf | Apply
"""A weight as an expression of live tensors, evaluated when it is packed."""


def live(binding: Binding) -> tuple[Tensor, ...]:
    """The live tensors of a binding, in the order of its leaves.

    Raises:
        Reject: one of them was freed.
    """
    tensors = []
    for leaf in binding.leaves():
        tensor = leaf.tensor()
        if tensor is None:
            raise Reject(f"{leaf.name} no longer exists")
        tensors.append(tensor)
    return tuple(tensors)


def evaluate(binding: Binding, tensors: Iterable[Tensor]) -> Tensor:
    """Value of a binding for the live tensors of its leaves, in order."""
    leaves = binding.leaves()
    return binding.evaluate({x.index: t for x, t in zip(leaves, tensors, strict=True)})


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor only says what shape, dtype and device one would have."""
    if type(tensor) in (Tensor, torch.nn.Parameter):
        return False
    # Imports sympy, which takes longer than all of torch.
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, FakeTensor)


def beside(value: Tensor, tensor: Tensor) -> Tensor:
    """A tensor that was made on the CPU on the device of another; fake where that one is."""
    if is_fake(tensor):
        return tensor.new_empty(value.shape, dtype=value.dtype)
    return value.to(tensor.device)


def _address(tensor: Tensor) -> int:
    return 0 if is_fake(tensor) else tensor.data_ptr()


def _geometry(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...]]:
    return tensor.shape, tensor.stride()


@dataclass(frozen=True)
class Stamp:
    """What a live tensor was when it was packed; an in-place write or a swap changes it.

    Its storage is held by a weak reference: no other storage gets the same address, as one of the
    same size does that is made after this one was freed.
    """

    tensor: weakref.ref[Tensor]
    storage: StorageWeakRef
    version: int
    data_ptr: int
    geometry: tuple[torch.Size, tuple[int, ...]]

    @classmethod
    def of(cls, tensor: Tensor) -> Stamp:
        """The stamp of a tensor as it is now."""
        storage = StorageWeakRef(tensor.untyped_storage())
        return cls(
            weakref.ref(tensor), storage, tensor._version, _address(tensor), _geometry(tensor)
        )

    def matches(self, tensor: Tensor) -> bool:
        """Whether the tensor is the same object with the same contents, as far as torch can tell.

        `p.data.mul_()` writes behind torch's back and is not seen; call `refresh` after it.
        """
        return (
            self.tensor() is tensor
            and self.storage.cdata == tensor.untyped_storage()._cdata
            and self.version == tensor._version
            and self.data_ptr == _address(tensor)
            and self.geometry == _geometry(tensor)
        )


@dataclass(frozen=True, eq=False)
class Fresh(Generic[T]):
    """Something made from a weight, with the stamps of its live tensors at that moment."""

    value: T
    stamps: tuple[Stamp, ...]

    def matches(self, tensors: Iterable[Tensor]) -> bool:
        """Whether the tensors are still what they were."""
        return all(map(Stamp.matches, self.stamps, tensors))

    def is_alive(self) -> bool:
        """Whether all of the tensors still exist."""
        return all(stamp.tensor() is not None for stamp in self.stamps)


class PackCache:
    """What was made from weights, one copy for each purpose, kept as long as a Parameter lives."""

    def __init__(self) -> None:
        self._entries: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._lock = threading.RLock()
        self.epoch = 0
        """Rises with `forget`, or when another layout is chosen: graphs look at everything anew."""

    def get(
        self,
        binding: Binding,
        tensors: Iterable[Tensor],
        purpose: Hashable,
        make: Callable[[], T],
    ) -> Fresh[T]:
        """`make()`, or what it gave before while the live tensors have not changed.

        Args:
            binding: the weight.
            tensors: the live tensors of `binding.leaves()`, in order.
            purpose: what is made; a weight has one value for each.
            make: makes it of these live tensors; called without gradients.
        """
        leaves = tuple(tensors)
        key = (identity(binding, leaves), purpose)
        _watch_fused_optimizers()
        with self._lock:
            entries = self._entries.setdefault(leaves[0], {})
            found: Fresh[T] | None = entries.get(key)
            if found is None or not found.matches(leaves):
                stamps = tuple(map(Stamp.of, leaves))
                with torch.no_grad():
                    found = Fresh(make(), stamps)
                for other in [key for key, entry in entries.items() if not entry.is_alive()]:
                    del entries[other]
                entries[key] = found
            return found

    def release(self, first: Tensor, weight: Hashable, purpose: Hashable) -> None:
        """Let go of what was made of a weight: of its first tensor and `identity`."""
        with self._lock:
            self._entries.get(first, {}).pop((weight, purpose), None)

    def forget(self, tensors: Iterable[Tensor]) -> None:
        """Pack these tensors anew at the next call of any graph, whatever torch says of them."""
        wanted = {id(tensor): tensor for tensor in tensors}
        with self._lock:
            for leaf, entries in list(self._entries.items()):
                stamps = [stamp for entry in entries.values() for stamp in entry.stamps]
                if id(leaf) in wanted or any(id(stamp.tensor()) in wanted for stamp in stamps):
                    entries.clear()
            self.epoch += 1


@cache
def _watch_fused_optimizers() -> None:
    """They write weights without telling torch's version counters."""

    def forget(optimizer: torch.optim.Optimizer, *_: object) -> None:
        fused = [group for group in optimizer.param_groups if group.get("fused")]
        if fused:
            PACK_CACHE.forget(tensor for group in fused for tensor in group["params"])

    register_optimizer_step_post_hook(forget)


def identity(binding: Binding, leaves: tuple[Tensor, ...]) -> Hashable:
    """Identity of an expression, whatever graph it appears in."""
    names = {leaf.index: id(tensor) for leaf, tensor in zip(binding.leaves(), leaves, strict=True)}

    def part(arg: Any) -> Hashable:
        if isinstance(arg, Leaf):
            return names[arg.index]
        if isinstance(arg, Apply):
            return arg.function, part(arg.args), repr(arg.kwargs)
        return tuple(map(part, arg)) if isinstance(arg, tuple) else repr(arg)

    return part(binding)


PACK_CACHE = PackCache()
"""The process's cache: recompiles, graph breaks and tied weights pack once."""
