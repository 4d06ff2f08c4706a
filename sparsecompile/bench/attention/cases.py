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
        kind: `decode`, one query over a static cache of which `context` keys count; `cross`, one
            over all keys of an encoder; `prefill`, as many queries as keys; `encoder`, the same
            with `context` the shortest of a padded batch.
        mask: `causal`, `window(256)`, `padding`, `full`, `cache`, or `bias`, which is added.
        batch: sequences.
        heads: of queries.
        kv_heads: of keys and values.
        width: of a head.
        keys: length of the sequence, or of the cache.
        context: see `kind`.
        layers: calls, one after the other in one graph.
        dtype: name of one of torch's.
        stored: what the cache holds, with a scale for each row: `int8`; empty for `dtype`.
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
    stored: str = ""

    @property
    def queries(self) -> int:
        """Rows of q."""
        return 1 if self.kind in ("decode", "cross") else self.keys

    def __str__(self) -> str:
        """`decode smollm2 128/2048 x30 bfloat16`."""
        sizes = f"{self.context}/{self.keys}" if self.context != self.keys else str(self.keys)
        layers = f"x{self.layers}" if self.layers > 1 else ""
        mask = "" if self.kind == "decode" else self.mask
        stored = f"kv={self.stored}" if self.stored else ""
        parts = (self.kind, self.name, mask, sizes, layers, stored, self.dtype)
        return " ".join(filter(None, parts))


Heads = tuple[int, int, int]
"""Of queries, of keys, and the width of one."""


def _decode(name: str, heads: Heads, keys: int, context: int, layers: int = 1) -> AttentionCase:
    return AttentionCase(name, "decode", "cache", 1, *heads, keys, context, layers)


def _prefill(name: str, mask: str, keys: int, heads: Heads = (8, 8, 64)) -> AttentionCase:
    return AttentionCase(name, "prefill", mask, 1, *heads, keys, keys)


def _encoder(
    name: str, mask: str, keys: int, heads: Heads, batch: int = 1, shortest: int = 0
) -> AttentionCase:
    return AttentionCase(name, "encoder", mask, batch, *heads, keys, shortest or keys)


SMOLLM2, LLAMA, QWEN3, GEMMA3 = (9, 3, 64), (32, 8, 128), (16, 8, 128), (4, 1, 256)
"""SmolLM2-135M, Llama 3 8B, Qwen3 0.6B and Gemma 3 1B."""
MINILM, BASE, WHISPER, T5 = (12, 12, 32), (12, 12, 64), (6, 6, 64), (8, 8, 64)
"""MiniLM-L6, BERT-base and ViT-B/16, Whisper-tiny, and T5-small."""
COLD = _decode("llama-8b", LLAMA, 8192, 8192, layers=8)
"""Keys and values are 268 MB in bfloat16, more than caches hold."""
SHAPES = (
    *(_decode("smollm2", SMOLLM2, 2048, context, layers=30) for context in (128, 512, 2048)),
    *(_decode("llama-8b", LLAMA, keys, keys) for keys in (2048, 8192)),
    COLD,
    replace(COLD, stored="int8"),
    *(_prefill("h8d64", "window(256)", keys) for keys in (2048, 8192)),
    *(_prefill("h8d64", "causal", keys) for keys in (2048, 8192)),
    _prefill("smollm2", "causal", 512, SMOLLM2),
    _encoder("minilm", "padding", 128, MINILM, batch=8, shortest=64),
    _encoder("bert-base", "full", 384, BASE, batch=4),
)
ALL = ("float32", "bfloat16", "float16")
OF_GRID: tuple[tuple[AttentionCase, tuple[str, ...]], ...] = (
    (_decode("smollm2", SMOLLM2, 2048, 128, layers=30), DTYPES),
    (_decode("smollm2", SMOLLM2, 2048, 1023), DTYPES),
    (_decode("smollm2", SMOLLM2, 333, 333), DTYPES),
    (_decode("llama-8b", LLAMA, 4096, 4096), DTYPES),
    (_decode("qwen3-0.6b", QWEN3, 2048, 777), ALL),
    (_decode("gemma3-1b", GEMMA3, 2048, 2048), DTYPES),
    (_decode("gemma3-1b", GEMMA3, 512, 512), DTYPES),
    (AttentionCase("whisper-tiny", "cross", "full", 1, *WHISPER, 1500, 1500), ALL),
    (_prefill("smollm2", "causal", 333, SMOLLM2), DTYPES),
    (_prefill("llama-8b", "causal", 1024, LLAMA), ("bfloat16",)),
    (_prefill("qwen3-0.6b", "causal", 1000, QWEN3), DTYPES),
    (_prefill("gemma3-1b", "causal", 512, GEMMA3), ("float16",)),
    (_prefill("gemma3-1b", "window(512)", 2048, GEMMA3), DTYPES),
    (_encoder("minilm", "padding", 128, MINILM, batch=8, shortest=64), DTYPES),
    (_encoder("minilm", "full", 77, MINILM, batch=8), ("float32",)),
    (_encoder("bert-base", "padding", 384, BASE, batch=4, shortest=201), DTYPES),
    (_encoder("bert-base", "full", 384, BASE, batch=4), ("float16",)),
    (_encoder("vit-b16", "full", 197, BASE, batch=4), DTYPES),
    (_encoder("whisper-tiny", "full", 1500, WHISPER), DTYPES),
    (_encoder("t5-small", "bias", 512, T5), DTYPES),
    (_encoder("t5-small", "bias", 100, T5), DTYPES),
)
"""Of many models, lengths and masks: shapes and their dtypes, 40 cases in all."""


def attention_cases(pattern: str, dtypes: str = "", *, grid: bool = False) -> list[AttentionCase]:
    """Those whose text matches, in these dtypes.

    Args:
        pattern: such as `decode*`.
        dtypes: names with commas between them; empty for the usual ones.
        grid: those of the grid; else a few, on which more can be seen.

    Raises:
        SparseCompileError: an unknown dtype, or no case matches.
    """
    shapes = OF_GRID if grid else tuple((case, DTYPES) for case in SHAPES)
    names = dtypes_of(dtypes)
    cases = [replace(case, dtype=name) for case, usual in shapes for name in names or usual]
    found = [case for case in cases if fnmatch(str(case), f"{pattern}*")]
    if not found:
        raise SparseCompileError(
            f"no case matches {pattern!r}; there are: {'; '.join(map(str, cases))}"
        )
    return found


def window_case(tokens: int, dtype: str) -> AttentionCase:
    """A prompt of so many tokens with a window, as it is measured by length."""
    return replace(_prefill("h8d64", "window(256)", tokens), dtype=dtype)


def dtypes_of(text: str) -> list[str]:
    """Names with commas between them; none for an empty text.

    Raises:
        SparseCompileError: one is unknown.
    """
    names = [name.strip() for name in text.split(",") if text]
    unknown = [name for name in names if name not in ALL]
    if unknown:
        raise SparseCompileError(f"--dtype {unknown[0]!r} is none of float32, bfloat16 and float16")
    return names


def shapes_of(case: AttentionCase) -> Sequence[tuple[int, int, int, int]]:
    """Of q, k and v of a layer."""
    rest = (case.batch, case.kv_heads, case.keys, case.width)
    return ((case.batch, case.heads, case.queries, case.width), rest, rest)
