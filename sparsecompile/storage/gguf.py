"""load_gguf: what a GGUF file has quantised becomes packed weights of a model, one at a time."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sparsecompile.compiler import Compiler
from sparsecompile.errors import FileError, ModelError
from sparsecompile.graph.compiled_model import names_of
from sparsecompile.storage.compress import compressed, swap

logger = logging.getLogger("sparsecompile")
WRITE_ANEW = "convert or download it anew"

M = TypeVar("M", bound=nn.Module)


def load_gguf(path: str | Path, model: M) -> M:
    """Fill a model of transformers from a GGUF file, without a dense copy of what is quantised.

    Each tensor is decoded as package `gguf` does, in the dtype of the parameter that it is for. The
    grid that it was rounded to is found as in any other weight, so that weights of linears, and
    embeddings that are tied to one, become `PackedTensor`s that hold the same values bit for bit;
    what lies on no grid that is known stays dense, and the log says so. Names and the order of rows
    are those that transformers knows of GGUF.

    Args:
        path: the file.
        model: of transformers, such as `AutoModelForCausalLM.from_config(config)`; one made under
            `torch.device("meta")` takes no memory before.

    Returns:
        The model, with frozen parameters.

    Raises:
        FileError: the file is cut off or no GGUF file, lacks a parameter of the model or has one of
            another shape; it names the tensor at fault. What was read before is in the model.
        ModelError: the model is none of transformers, of an architecture whose tensors have no
            names in GGUF, or holds buffers without memory that nobody can fill; or `gguf` or
            transformers are not installed.
        OSError: the file cannot be opened.
    """
    try:
        from gguf import GGUFReader
        from transformers import PreTrainedModel
    except ImportError as error:
        raise ModelError(
            f"reading GGUF takes the packages gguf and transformers ({error}): pip install gguf "
            "transformers"
        ) from error
    path = Path(path)
    if not isinstance(model, PreTrainedModel):
        raise ModelError(f"{type(model).__name__} is no model of transformers")
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, KeyError) as error:
        raise FileError(path, "", f"cannot be read: {error}", WRITE_ANEW) from error
    model.tie_weights()
    linears = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    aliases, compiler = names_of(model), Compiler(tune="off")
    for name, value in _tensors(reader, path, model):
        parameter = model.get_parameter(name)
        if value.shape != parameter.shape:
            shapes = f"{[*value.shape]}, in the model {[*parameter.shape]}"
            raise FileError(path, name, f"is {shapes}", "load it into the model that it is of")
        dense = nn.Parameter(value.to(parameter.dtype), requires_grad=False)
        new: Tensor = dense
        if id(parameter) in linears:
            with torch.no_grad():
                new, reason = compressed(aliases[id(parameter)], dense, compiler)
            if reason:
                logger.info("%s: dense: %s", name, reason)
        swap(model, parameter, new)
    absent = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if absent:
        raise FileError(path, absent[0], "is not there", "load it into the model that it is of")
    _fill_buffers(model)
    return model.requires_grad_(False)


def _tensors(reader: Any, path: Path, model: Any) -> Iterator[tuple[str, Tensor]]:
    """Names of parameters and what the file says they are, in float32.

    Raises:
        FileError: it names no architecture, or a tensor is of a type that `gguf` does not decode.
        ModelError: the architecture has no names in GGUF.
    """
    from gguf import dequantize
    from transformers import modeling_gguf_pytorch_utils

    known: Any = modeling_gguf_pytorch_utils
    if "general.architecture" not in reader.fields:
        raise FileError(path, "", "it does not say of which architecture it is", WRITE_ANEW)
    architecture = reader.fields["general.architecture"].contents()
    make = known.TENSOR_PROCESSORS.get(architecture, known.TensorProcessor)
    processor = make(model.config.to_dict())
    try:
        names = known.get_gguf_hf_weights_map(model, processor)
    except NotImplementedError as error:
        raise ModelError(f"{type(model).__name__} has no names in GGUF: {error}") from error
    # Several tensors may make one, such as those of experts: a processor writes these here.
    joined: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        try:
            decoded = dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            message = f"is {tensor.tensor_type.name}, which package gguf does not decode"
            raise FileError(path, tensor.name, message, WRITE_ANEW) from error
        facts = {"tensor_key_mapping": names, "parsed_parameters": {"tensors": joined}}
        result = processor.process(weights=decoded, name=tensor.name, **facts)
        if result.name in names:
            yield names[result.name], torch.tensor(result.weights)
        del decoded, result
        # Pages that were read are the file's, not ours; not every system lets go of them.
        with suppress(AttributeError, ValueError, OSError):
            reader.data._mmap.madvise(mmap.MADV_DONTNEED)
    yield from joined.items()


def _fill_buffers(model: Any) -> None:
    """Compute what is in no file, where the model was made without memory, as transformers does.

    Raises:
        ModelError: transformers does not say what a buffer holds.
    """
    for prefix, module in model.named_modules():
        absent = {name: b for name, b in module._buffers.items() if b is not None and b.is_meta}
        if not absent:
            continue
        # NaN stands for what is not known. Parameters that were read must not be made anew.
        known = not module._parameters and all(b.is_floating_point() for b in absent.values())
        if known:
            for name, buffer in absent.items():
                module._buffers[name] = torch.full_like(buffer, torch.nan, device="cpu")
            with torch.no_grad():
                model._init_weights(module)
        if not known or any(bool(module._buffers[name].isnan().any()) for name in absent):
            names = ", ".join(f"{prefix}.{name}".removeprefix(".") for name in absent)
            raise ModelError(
                f"{type(model).__name__} was made without memory, and transformers does not say "
                f"what {names} hold: make it on the CPU"
            )
