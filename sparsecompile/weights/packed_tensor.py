"""PackedTensor: a packed weight that stands where the dense one was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

import sparsecompile.weights.stored_ops  # noqa: F401 - the ops that `__torch_dispatch__` calls
from sparsecompile.errors import PackedWeightError
from sparsecompile.formats.expression import PackedExpr
from sparsecompile.formats.occupancy import FLOAT_DTYPES
from sparsecompile.formats.packed import Packed
from sparsecompile.weights.stored import AnyStored, find_stored

_aten = torch.ops.aten
_SAME = (_aten.detach.default, _aten.alias.default, _aten.clone.default)


class PackedTensor(Tensor):
    """A weight in float32, bfloat16 or float16 of which only the packed form is kept.

    It is `[n, k]`, or what an expression of such weights is: a sum, a product, a stack `[e, n, k]`.

    - `detach`, `clone` and copies share the packed form, which never changes.
    - `F.embedding` unpacks the rows that it reads; everything else unpacks the whole weight for a
      moment, unless `torch.compile(model, backend="sparse")` reads it as it is.
    - `to(dtype)` gives a PackedTensor of the rounded weight in the same format, with the same
      integers and scales where there are any; `to(device)` gives a dense tensor there. A module is
      converted before it is compiled: afterwards torch cannot put other tensors in its place.
    - Writing into it raises `PackedWeightError`, as `load_state_dict` without `assign=True` does.
    - Pickles hold the dense weight; `sparsecompile.save` keeps the packed one.

    Args:
        stored: the packed weight.
    """

    _handle: Tensor
    _format: str
    _stored: AnyStored | None

    # What functions do with it is decided below, in `__torch_dispatch__`.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, stored: AnyStored) -> PackedTensor:
        """Wrap a stored weight."""
        handle = torch.tensor([stored.handle])
        made = cls._make(handle, stored.shape, stored.dtype, str(stored.format))
        made._stored = stored
        return made

    def __init__(self, stored: AnyStored) -> None:
        """See the class."""

    @classmethod
    def _make(
        cls, handle: Tensor, shape: Sequence[int], dtype: torch.dtype, format: str
    ) -> PackedTensor:
        made: PackedTensor = Tensor._make_wrapper_subclass(
            cls, shape, dtype=dtype, device=handle.device
        )
        made._handle, made._format, made._stored = handle, format, None
        return made

    @property
    def stored(self) -> AnyStored:
        """The packed weight; only where the tensor is a real one, not one that stands for it."""
        if self._stored is None:
            self._stored = find_stored(int(self._handle))
        return self._stored

    @property
    def packed(self) -> Packed | PackedExpr:
        """The canonical tensors, or an expression of such."""
        return self.stored.packed()

    @property
    def data(self) -> Tensor:
        """The same weight."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        raise PackedWeightError("data", self._format)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """See the class."""
        kwargs = kwargs or {}
        if func in _SAME:
            return _share(args[0])
        if func is _aten.embedding.default and _is_table(*args[:2]):
            weight, rows = args[0], args[1]
            op = torch.ops.sparsecompile.stored_rows
            return op(weight._handle, rows, weight.shape[1], weight.dtype)
        if func is _aten._to_copy.default and _changes_dtype_alone(args[0], kwargs):
            return PackedTensor(args[0].stored.to(kwargs["dtype"]))
        for argument, given in zip(func._schema.arguments, args, strict=False):
            _check_unwritten(argument, given, func)
        for argument in func._schema.arguments[len(args) :]:
            _check_unwritten(argument, kwargs.get(argument.name), func)
        return func(
            *tree_map_only(PackedTensor, _dense, args),
            **tree_map_only(PackedTensor, _dense, kwargs),
        )

    def __tensor_flatten__(self) -> tuple[list[str], tuple[Any, ...]]:
        """Its number alone: a graph stays right when the weight moves into a kernel's layout."""
        return ["_handle"], (tuple(self.shape), self.dtype, self._format)

    @classmethod
    def __tensor_unflatten__(
        cls, inner: Mapping[str, Tensor], context: tuple[Any, ...], size: Any, stride: Any
    ) -> PackedTensor:
        """Inverse of `__tensor_flatten__`."""
        return cls._make(inner["_handle"], *context)

    def _stable_hash_for_caching(self) -> str:
        """What graphs depend on."""
        return repr((tuple(self.shape), self.dtype, self._format))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As the dense weight."""
        dense = _dense(self)
        if isinstance(self, torch.nn.Parameter):
            dense = torch.nn.Parameter(dense, self.requires_grad)
        return dense.__reduce_ex__(protocol)

    def __repr__(self, **ignored: Any) -> str:  # type: ignore[override]
        """Shape, dtype and format."""
        return f"PackedTensor({tuple(self.shape)}, {self.dtype}, {self._format!r})"


def _share(weight: PackedTensor) -> PackedTensor:
    shared = PackedTensor._make(weight._handle, weight.shape, weight.dtype, weight._format)
    shared._stored = weight._stored
    return shared


def _dense(weight: PackedTensor) -> Tensor:
    op = torch.ops.sparsecompile.stored_weight
    return op(weight._handle, list(weight.shape), weight.dtype)  # type: ignore[no-any-return]


def _is_table(weight: Tensor, rows: Tensor) -> bool:
    return not isinstance(rows, PackedTensor) and weight.dim() == 2


def _changes_dtype_alone(weight: PackedTensor, kwargs: Mapping[str, Any]) -> bool:
    """Whether a real weight, not one that stands for it, stays where it is in another dtype."""
    device = kwargs.get("device")
    stays = device is None or torch.device(device).type == "cpu"
    return stays and kwargs.get("dtype") in FLOAT_DTYPES and type(weight._handle) is Tensor


def _check_unwritten(argument: Any, given: object, func: Any) -> None:
    written = argument.alias_info is not None and argument.alias_info.is_write
    if written and isinstance(given, PackedTensor):
        raise PackedWeightError(func._schema.name.removeprefix("aten::"), given._format)
