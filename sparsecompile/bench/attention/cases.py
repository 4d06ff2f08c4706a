"""What `bench attention` measures: shapes and masks as models have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch

from sparsecompile.errors import SparseCompileError

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class AttentionCase:
    """One attention, or a stack of them, of which each has keys and values of its own.

    Attributes:
        name: of the model whose sizes it has.
        kind: `decode`, one query over a static cache of which `context` keys count; `prefill`, as
            many queries as keys; `encoder`, the same with `context` the shortest of a padded batch.
        mask: `causal`, `window(256)`, `padding`, `full` or `cache`.
        batch: sequences.
        heads: of queries.
        kv_heads: of keys and values.
        width: of a head.
        keys: length of the sequence, or of the cache.
        context: see `kind`.
        layers: calls, one after the other in one graph.
        dtype: name of one of torch's.
    """

    name: str
    kind: str
    mask: str
    batch: int
    heads: int
    kv_heads: int
    width: int
    keys: int
    context: int
    layers: int = 1
    dtype: str = "float32"

    @property
    def queries(self) -> int:
        """Rows of q."""
        return 1 if self.kind == "decode" else self.keys

    def __str__(self) -> str:
        """`decode smollm2 128/2048 x30 bfloat16`."""
        sizes = f"{self.context}/{self.keys}" if self.context != self.keys else str(self.keys)
        layers = f"x{self.layers}" if self.layers > 1 else ""
        mask = "" if self.kind == "decode" else self.mask
        parts = (self.kind, self.name, mask, sizes, layers, self.dtype)
        return " ".join(filter(None, parts))


Heads = tuple[int, int, int]
"""Of queries, of keys, and the width of one."""


def _decode(name: str, heads: Heads, keys: int, context: int, layers: int = 1) -> AttentionCase:
    return AttentionCase(name, "decode", "cache", 1, *heads, keys, context, layers)


def _prefill(name: str, mask: str, keys: int, heads: Heads = (8, 8, 64)) -> AttentionCase:
    return AttentionCase(name, "prefill", mask, 1, *heads, keys, keys)


SMOLLM2, LLAMA = (9, 3, 64), (32, 8, 128)
"""SmolLM2-135M and Llama 3 8B."""
SHAPES = (
    *(_decode("smollm2", SMOLLM2, 2048, context, layers=30) for context in (128, 512, 2048)),
    *(_decode("llama-8b", LLAMA, keys, keys) for keys in (2048, 8192)),
    *(_prefill("h8d64", "window(256)", keys) for keys in (2048, 8192)),
    *(_prefill("h8d64", "causal", keys) for keys in (2048, 8192)),
    _prefill("smollm2", "causal", 512, SMOLLM2),
    AttentionCase("minilm", "encoder", "padding", 8, 12, 12, 32, 128, 64),
    AttentionCase("bert-base", "encoder", "full", 4, 12, 12, 64, 384, 384),
)


def attention_cases(pattern: str, dtypes: str) -> list[AttentionCase]:
    """Those whose text matches, in these dtypes.

    Args:
        pattern: such as `decode*`.
        dtypes: names with commas between them.

    Raises:
        SparseCompileError: an unknown dtype, or no case matches.
    """
    names = [name.strip() for name in dtypes.split(",")]
    unknown = [name for name in names if name not in (*DTYPES, "float16")]
    if unknown:
        raise SparseCompileError(f"--dtype {unknown[0]!r} is none of float32, bfloat16 and float16")
    cases = [replace(case, dtype=name) for case in SHAPES for name in names]
    found = [case for case in cases if fnmatch(str(case), f"{pattern}*")]
    if not found:
        raise SparseCompileError(
            f"no case matches {pattern!r}; there are: {'; '.join(map(str, cases))}"
        )
    return found


def shapes_of(case: AttentionCase) -> Sequence[tuple[int, int, int, int]]:
    """Of q, k and v of a layer."""
    rest = (case.batch, case.kv_heads, case.keys, case.width)
    return ((case.batch, case.heads, case.queries, case.width), rest, rest)
