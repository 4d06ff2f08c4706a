"""load: a file that `save` wrote, checked and mapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from sparsecompile.errors import FileError, RegistrationError, Reject
from sparsecompile.formats.expression_text import parse
from sparsecompile.formats.occupancy import FLOAT_DTYPES
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.registry import default_registry
from sparsecompile.storage.save import KEY, VERSION
from sparsecompile.storage.tensor_file import DTYPES, TensorFile, is_sizes
from sparsecompile.weights.packed_tensor import PackedTensor
from sparsecompile.weights.stored import Stored, store

M = TypeVar("M", bound=nn.Module)
_LARGEST_SIDE = 2**31 - 1


@overload
def load(path: str | Path) -> dict[str, Tensor]: ...
@overload
def load(path: str | Path, model: M) -> M: ...
def load(path: str | Path, model: nn.Module | None = None) -> Any:
    """Read what `sparsecompile.save` wrote, without ever holding a dense copy of a packed weight.

    Tensors are views of the file's pages, read when they are needed; the file has to stay as it is
    while they live. Packed weights are `PackedTensor`s, tied ones one tensor.

    Args:
        path: the file.
        model: a model to fill; one made under `torch.device("meta")` takes no memory before. Its
            packed parameters are frozen, tied ones become one, and buffers that are in no
            `state_dict` are filled too.

    Returns:
        The model, or without one its state, for
        `model.load_state_dict(sparsecompile.load(path), assign=True)`.

    Raises:
        FileError: the file is cut off, was tampered with or has another version; it names the
            tensor at fault. Every size and every index is checked before use.
        OSError: the file cannot be opened.
        RuntimeError: the model has other parameters than the file, as torch says it.
    """
    file = TensorFile.open(path)
    facts = _facts(file)
    state: dict[str, Tensor] = {}
    parts: dict[str, list[str]] = {}
    for name in file.entries:
        weight = name.rpartition("::")[0]
        if weight in facts["packed"]:
            parts.setdefault(weight, []).append(name)
        else:
            state[name] = file.map(name)
    packed = {
        name: _packed(file, name, given, parts.get(name, []))
        for name, given in facts["packed"].items()
    }
    for name, text in facts["expressions"].items():
        state[name] = _expression(file, name, text, packed)
    state |= {name: PackedTensor(Stored(weight)) for name, weight in packed.items()}
    for name, kept in facts["tied"].items():
        if name in state or kept not in state:
            raise FileError(file.path, name, f"is tied to {kept}, which is not there")
        state[name] = state[kept]
    missing = [name for name in facts["buffers"] if name not in state]
    if missing:
        raise FileError(file.path, missing[0], "is not there")
    if model is None:
        return {name: t for name, t in state.items() if name not in facts["buffers"]}
    return _fill(model, state, facts)


def _fill(model: M, state: dict[str, Tensor], facts: dict[str, Any]) -> M:
    buffers = {name: state.pop(name) for name in facts["buffers"]}
    model.load_state_dict(state, assign=True)
    for name, buffer in buffers.items():
        owner, _, attribute = name.rpartition(".")
        model.get_submodule(owner)._buffers[attribute] = buffer
    for name, kept in facts["tied"].items():
        (owner, _, attribute), (keeper, _, original) = name.rpartition("."), kept.rpartition(".")
        parameters = model.get_submodule(owner)._parameters
        if attribute in parameters:
            parameters[attribute] = model.get_submodule(keeper)._parameters[original]
    for parameter in model.parameters():
        if isinstance(parameter, PackedTensor):
            parameter.requires_grad_(False)
    return model


def _facts(file: TensorFile) -> dict[str, Any]:
    """What `save` wrote about the tensors.

    Raises:
        FileError: nothing, something else, or of another version.
    """
    try:
        facts: dict[str, Any] = json.loads(file.metadata.get(KEY, ""))
    except (ValueError, RecursionError):
        raise FileError(file.path, "", "it says nothing about packed weights") from None
    version = facts.get("version") if isinstance(facts, dict) else None
    known = range(1, VERSION + 1)
    if version not in known:
        raise FileError(
            file.path,
            "",
            f"its version is {version!r}, known are 1 to {VERSION}: update sparsecompile",
        )
    if version == 1:
        facts["expressions"] = {}
    kinds = {"packed": dict, "expressions": dict, "tied": dict, "buffers": list}
    for key, kind in kinds.items():
        if not isinstance(facts.get(key), kind):
            raise FileError(file.path, "", f"{key!r} in its metadata is {facts.get(key)!r}")
    for name in (*facts["tied"].values(), *facts["buffers"]):
        if not isinstance(name, str):
            raise FileError(file.path, "", f"its metadata calls a tensor {name!r}")
    return facts


def _packed(file: TensorFile, name: str, facts: Any, parts: list[str]) -> Packed:
    """One packed weight.

    Raises:
        FileError: its tensors are not those of a weight in its format.
    """
    format, shape, dtype, slots = _declared(file, name, facts)
    # Version 1 began without it.
    exact = facts.get("exact", format.codec.lossless)
    if not isinstance(exact, bool):
        raise FileError(file.path, name, f"is said to be exact: {exact!r}")
    index, values = _expected(format, dtype)
    wanted = {f"{name}::{part}": like.dtype for part, like in {**index, **values}.items()}
    for tensor in wanted.keys() ^ set(parts):
        there = "is one too many" if tensor in parts else "is missing"
        raise FileError(file.path, tensor, f"{there}: {format} has {', '.join(wanted)}")
    for tensor, kind in wanted.items():
        if file.entries[tensor].dtype != kind:
            raise FileError(file.path, tensor, f"is {file.entries[tensor].dtype}, not {kind}")
    index = {part: file.map(f"{name}::{part}") for part in index}
    values = {part: file.map(f"{name}::{part}") for part in values}
    try:
        format.structure.check_index(index, shape, slots)
        format.codec.check_values(values, shape, slots)
    except Reject as reject:
        part, _, what = reject.reason.partition(" ")
        raise FileError(file.path, f"{name}::{part}", what) from None
    return Packed(format, shape, dtype, slots, index, values, exact)


def _expression(file: TensorFile, name: str, text: Any, packed: dict[str, Packed]) -> Tensor:
    """One weight that is an expression; its leaves are taken out of the packed ones.

    Raises:
        FileError: the expression cannot be read, its leaves are not there in the formats that it
            names, or do not go together.
    """
    try:
        formats = parse(str(text), default_registry().format)
    except (ValueError, RecursionError) as error:
        raise FileError(file.path, name, f"is no expression of formats: {error}") from None
    leaves = []
    for index, format in enumerate(formats.leaves()):
        leaf = packed.pop(f"{name}::{index}", None)
        if leaf is None or leaf.format != format:
            there = "not there" if leaf is None else f"packed as {leaf.format}"
            raise FileError(file.path, f"{name}::{index}", f"is {there}: {text} needs {format}")
        leaves.append(leaf)
    try:
        return PackedTensor(store(formats.of(leaves)))
    except ValueError as error:
        raise FileError(file.path, name, str(error)) from None


def _declared(
    file: TensorFile, name: str, facts: Any
) -> tuple[Format, tuple[int, int], torch.dtype, int]:
    """Format, shape, dtype and slots of a packed weight, as the metadata has them."""
    facts = facts if isinstance(facts, dict) else {}
    shape, slots = facts.get("shape"), facts.get("slots")
    dtype = DTYPES.get(str(facts.get("dtype")))
    is_pair = is_sizes(shape) and len(shape) == 2 and max(shape) <= _LARGEST_SIDE
    if not is_pair or not is_sizes([slots]):
        raise FileError(file.path, name, f"has shape {shape!r} and {slots!r} slots")
    if dtype is None or dtype not in FLOAT_DTYPES:
        raise FileError(file.path, name, f"has dtype {facts.get('dtype')!r}")
    try:
        format = default_registry().format(str(facts.get("format")))
    except RegistrationError as error:
        raise FileError(file.path, name, f"{error}, or install what registers it") from None
    return format, (shape[0], shape[1]), dtype, slots


def _expected(format: Format, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of the smallest weight in a format: names and dtypes are those of every other."""
    smallest = format.pack(torch.zeros(0, 0, dtype=dtype))
    return dict(smallest.index), dict(smallest.values)
