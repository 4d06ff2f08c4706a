"""Tensor files: safetensors, written piece by piece, mapped when read, every size checked first.

The format (https://github.com/huggingface/safetensors): 8 bytes with the length of the header,
little-endian; the header, JSON, `{"__metadata__": {text: text}, name: {"dtype": "F32", "shape":
[n, k], "data_offsets": [begin, end]}}`; then the tensors' bytes, without holes, offsets counted
from the end of the header. What is written here has tensors of wide dtypes first and a header of a
multiple of 8 bytes, so that every tensor is aligned.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from sparsecompile.errors import FileError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Entry:
    """A tensor in a file.

    Attributes:
        dtype: of the tensor.
        shape: of the tensor.
        begin: first byte, counted from the beginning of the file.
        nbytes: how many there are.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    nbytes: int


@dataclass(frozen=True)
class TensorFile:
    """A file whose header has been checked.

    Attributes:
        path: where it is.
        metadata: texts by name.
        entries: tensors by name.
    """

    path: Path
    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]

    @classmethod
    def open(cls, path: str | Path) -> TensorFile:
        """Read and check the header.

        Raises:
            FileError: the file is no such file, is cut off, or its sizes contradict one another.
            OSError: it cannot be opened.
        """
        path = Path(path)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LARGEST_HEADER):
                raise FileError(
                    path, "", f"a header of {length} bytes does not fit into {size} bytes"
                )
            text = file.read(length)
        try:
            header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_repetition)
        except (ValueError, RecursionError) as error:
            raise FileError(path, "", f"the header is no JSON of a tensor file: {error}") from None
        if not isinstance(header, dict):
            raise FileError(path, "", "the header is no JSON object")
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise FileError(path, "__metadata__", "is no object of texts")
        start = 8 + length
        entries = {name: _entry(path, name, facts, start) for name, facts in header.items()}
        end = start
        for name, entry in sorted(entries.items(), key=lambda e: (e[1].begin, e[1].nbytes)):
            if entry.begin != end:
                raise FileError(path, name, f"begins at byte {entry.begin}, not at {end}")
            end += entry.nbytes
            if end > size:
                raise FileError(path, name, f"is cut off: it ends at byte {end} of {size}")
        if end != size:
            raise FileError(path, "", f"{size - end} bytes stand behind the last tensor")
        return cls(path, metadata, entries)

    def map(self, name: str) -> Tensor:
        """A tensor over the file's pages: read when touched, copied when written."""
        entry = self.entries[name]
        if not entry.nbytes:
            return torch.empty(entry.shape, dtype=entry.dtype)
        start = entry.begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        with self.path.open("rb") as file:
            # A map of its own, so that its pages go when the tensor does.
            pages = mmap.mmap(
                file.fileno(),
                entry.begin - start + entry.nbytes,
                access=mmap.ACCESS_COPY,
                offset=start,
            )
        count = prod(entry.shape)
        flat = torch.frombuffer(pages, dtype=entry.dtype, count=count, offset=entry.begin - start)
        return flat.view(entry.shape)


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a file, whole or not at all.

    Args:
        path: where; what was there is replaced.
        tensors: by name, contiguous, on the CPU, of a dtype in `DTYPES`.
        metadata: texts by name.
    """
    path = Path(path)
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(len(text).to_bytes(8, "little"))
            file.write(text)
            for _, tensor in ordered:
                nbytes = tensor.numel() * tensor.element_size()
                if nbytes:
                    file.write((ctypes.c_char * nbytes).from_address(tensor.data_ptr()))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """What new files are not allowed; can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _entry(path: Path, name: str, facts: Any, start: int) -> Entry:
    facts = facts if isinstance(facts, dict) else {}
    dtype, shape, offsets = (facts.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FileError(path, name, f"has dtype {dtype!r}, known: {', '.join(DTYPES)}")
    if not is_sizes(shape):
        raise FileError(path, name, f"has shape {shape!r}, no list of sizes")
    if not is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FileError(path, name, f"has data_offsets {offsets!r}, not [begin, end]")
    nbytes = prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != nbytes:
        there = offsets[1] - offsets[0]
        raise FileError(path, name, f"has {there} bytes, {dtype} {shape} takes {nbytes}")
    return Entry(DTYPES[dtype], tuple(shape), start + offsets[0], nbytes)


def is_sizes(value: Any) -> TypeGuard[list[int]]:
    """Whether something read from JSON is a list of integers from 0 to 2**62."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= 2**62 for n in value)
