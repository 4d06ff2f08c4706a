"""save: a model's state in one safetensors file, packed weights as they are packed.

Layout of the file, beside what safetensors itself says (`sparsecompile.storage.tensor_file`):

- a dense parameter or buffer is a tensor under its name in `model.state_dict()`;
- a packed weight `name` is one tensor for each canonical tensor of its format, index first:
  `name::codes`, `name::values`, `name::scales`; docstrings of structures and codecs say what is in
  them;
- one that is an expression of others is these others, called `name::0`, `name::1`, in order;
- the metadata has one text, `sparsecompile`, JSON:
  `{"version": 2,
    "packed": {name: {"format": "n_m[2:4]/int4[group=128]", "shape": [n, k], "dtype": "BF16",
                      "slots": stored values, "exact": whether packing rounded nothing}},
    "expressions": {name: "sum(n_m[2:4]/float, csr/float)"},
    "tied": {name: the name under which the same tensor is kept},
    "buffers": [buffers that are not in the state_dict, kept under their names too]}`.

Version 1 has no `expressions`. Nothing depends on a kernel or a machine. Tools that know
safetensors read all of it.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module

from sparsecompile.errors import SparseCompileError
from sparsecompile.formats.packed import Packed
from sparsecompile.storage.tensor_file import NAMES, write_tensors
from sparsecompile.weights.packed_tensor import PackedTensor

VERSION = 2
"""Of the layout; rises when older readers would misread it."""
KEY = "sparsecompile"
"""Name of the text in the file's metadata."""


def save(model: Module, path: str | Path) -> None:
    """Write a model's parameters and buffers to one safetensors file, whole or not at all.

    Packed weights are written packed (`sparsecompile.compress` makes them), others as they are,
    tied ones once. The layout is in the docstring of this module; `sparsecompile.load` reads it.

    Args:
        model: the module; what `torch.compile` returns too.
        path: the file; what was there is replaced.

    Raises:
        SparseCompileError: something in the model's state cannot be kept: no tensor, a tensor
            without values, or of another kind.
        OSError: the file cannot be written.
    """
    model = getattr(model, "_orig_mod", model)
    state: dict[str, Any] = dict(model.state_dict(keep_vars=True))
    buffers = [name for name, _ in model.named_buffers() if name not in state]
    state |= {name: tensor for name, tensor in model.named_buffers() if name in buffers}
    tensors: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Any]] = {}
    expressions: dict[str, str] = {}
    tied: dict[str, str] = {}
    first: dict[Hashable, str] = {}
    for name, tensor in state.items():
        kept = first.setdefault(_identity(name, tensor), name)
        if kept != name:
            tied[name] = kept
        elif isinstance(tensor, PackedTensor):
            weight = tensor.packed
            if isinstance(weight, Packed):
                leaves = {name: weight}
            else:
                expressions[name] = str(tensor.stored.format)
                leaves = {f"{name}::{i}": leaf for i, leaf in enumerate(weight.leaves())}
            for leaf, kept_as in leaves.items():
                packed[leaf] = _facts(kept_as)
                for part, values in kept_as.tensors.items():
                    _add(tensors, f"{leaf}::{part}", values)
        else:
            _add(tensors, name, tensor.detach().cpu())
    facts = {
        "version": VERSION,
        "packed": packed,
        "expressions": expressions,
        "tied": tied,
        "buffers": buffers,
    }
    write_tensors(path, tensors, {KEY: json.dumps(facts, separators=(",", ":"))})


def _facts(weight: Packed) -> dict[str, Any]:
    """What is said of a packed weight."""
    return {
        "format": str(weight.format),
        "shape": list(weight.shape),
        "dtype": NAMES[weight.dtype],
        "slots": weight.slots,
        "exact": weight.exact,
    }


def _add(tensors: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    if name in tensors:
        raise SparseCompileError(f"two tensors would be called {name}: rename one in the model")
    tensors[name] = tensor.contiguous()


def _identity(name: str, tensor: Any) -> Hashable:
    """What is equal for two names of one tensor.

    Raises:
        SparseCompileError: it cannot be kept.
    """
    if isinstance(tensor, PackedTensor):
        return tensor.stored.handle
    if not isinstance(tensor, Tensor):
        raise SparseCompileError(f"{name} is {type(tensor).__name__}: only tensors can be saved")
    if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer) or tensor.dtype not in NAMES:
        kind = f"{type(tensor).__name__} of {tensor.dtype}"
        raise SparseCompileError(f"{name} is a {kind}: make it a plain tensor before saving")
    if tensor.is_meta or tensor.layout != torch.strided:
        kind = f"{tensor.layout} tensor on {tensor.device}"
        raise SparseCompileError(f"{name} is a {kind}: its values are not at hand")
    if not tensor.numel():
        return name
    return (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
