"""The entry of attention: a row of a table of its own, with functions by numbers of queries."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparsecompile.codegen.cpp.built import Built
from sparsecompile.codegen.cpp.entry import Entry
from sparsecompile.codegen.cpp.native import DTYPES, ENDLESS, MAX_RANGES, load_native
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.kernels.kernel import Range
from sparsecompile.operators.attention.spec import AttentionSpec

KV_DTYPES = DTYPES | {torch.int8: 3}


class NativeAttention(ctypes.Structure):
    """`SCAttentionKernel` of `text/native/attention.cpp`, field by field."""

    _fields_: ClassVar[Sequence[tuple[str, Any]]] = (
        ("key", ctypes.c_int64),
        ("dtype", ctypes.c_int64),
        ("kv_dtype", ctypes.c_int64),
        ("head_dim", ctypes.c_int64),
        ("value_dim", ctypes.c_int64),
        ("groups", ctypes.c_int64),
        ("softcap", ctypes.c_int64),
        ("ranges", ctypes.c_int64),
        ("largest_q", ctypes.c_int64 * MAX_RANGES),
        ("attention", ctypes.c_void_p * MAX_RANGES),
        ("workspace", ctypes.c_void_p * MAX_RANGES),
    )


class AttentionEntry(Entry[AttentionSpec]):
    """See `text/native/attention.cpp`."""

    name = AttentionSpec.operator
    symbols = ("sc_attention_workspace",)

    def register(
        self,
        key: int,
        spec: AttentionSpec,
        first: Variant,
        ranges: Sequence[Range],
        built: Mapping[str, Built],
    ) -> Callable[[Tensor], Tensor] | None:
        """Functions by ranges; there is no layout."""
        native = NativeAttention(
            key=key,
            dtype=DTYPES[spec.dtype],
            kv_dtype=KV_DTYPES[spec.kv_dtype or spec.dtype],
            head_dim=spec.head_dim,
            value_dim=spec.value_dim,
            groups=spec.groups,
            softcap=spec.softcap,
            ranges=len(ranges),
        )
        for i, part in enumerate(ranges):
            functions = built[part.source].functions
            native.attention[i] = functions[part.symbol]
            native.workspace[i] = functions["sc_attention_workspace"]
            native.largest_q[i] = ENDLESS if part.largest_m is None else part.largest_m
        load_native().library.sc_register_attention(ctypes.byref(native))
        return None

    def serve(self, call: int, key: int) -> None:
        """One more row of the table."""
        library = load_native().library
        library.sc_serve_attention(ctypes.c_int64(call), ctypes.c_int64(key))


COMPONENTS = (AttentionEntry(),)
