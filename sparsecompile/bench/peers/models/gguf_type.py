"""A GGUF file with its matrices in another type, for runtimes that read GGUF."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock

from sparsecompile.bench.peers.models.smollm2 import find_gguf, kept_name, models_folder
from sparsecompile.bench.peers.prepared import LeftOut

AS_IT_IS = "as it is"


def gguf_as(model: str | None, kind: str) -> Path:
    """The path of a GGUF file whose matrices have that type; made once.

    Args:
        model: a GGUF file, or None for the one that a package brings.
        kind: `Q4_0`, `Q8_0`, `F16`, or `as it is`. Values that the file holds in fewer bits are
            rounded a second time, which changes what a model says, not how fast.

    Raises:
        LeftOut: the model is no GGUF file, or there is no such type.
    """
    file = find_gguf() if model is None else Path(model)
    if file.suffix != ".gguf":
        raise LeftOut(f"needs a GGUF file, not {file}: --model FILE.gguf")
    if kind == AS_IT_IS:
        return file
    made = models_folder() / f"{kept_name(file)}.{kind}.gguf"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            temporary = made.with_suffix(".part")
            _write(file, temporary, kind)
            os.replace(temporary, made)
    return made


def _write(file: Path, to: Path, kind: str) -> None:
    from gguf import (
        GGMLQuantizationType,
        GGUFReader,
        GGUFValueType,
        GGUFWriter,
        LlamaFileType,
        dequantize,
        quantize,
    )

    try:
        target = GGMLQuantizationType[kind]
        file_type = LlamaFileType[f"MOSTLY_{kind}"]
    except KeyError:
        raise LeftOut(f"no GGUF type is called {kind!r}; such as Q4_0, Q8_0, F16") from None
    reader = GGUFReader(file)
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(to, architecture)
    for name, field in reader.fields.items():
        # The writer has its own of these.
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        first = field.types[0]
        inner = field.types[-1] if first == GGUFValueType.ARRAY else None
        value = file_type.value if name == "general.file_type" else field.contents()
        writer.add_key_value(name, value, first, sub_type=inner)
    for tensor in reader.tensors:
        values, its = tensor.data, tensor.tensor_type
        if len(tensor.shape) > 1 and its != target:
            values, its = quantize(dequantize(values, its), target), target
        writer.add_tensor(tensor.name, values, raw_dtype=its)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
