"""Kernels of attention to hold the law of, the calls that they are held on, and the law."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

import torch
from kernel_cases import DTYPES, covering
from torch import Tensor

from sparsecompile.codegen.cpp.attention.template import FlashAttention
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.kernels.kernel import Kernel, Range
from sparsecompile.kernels.spec import Schedule
from sparsecompile.kernels.target import ISA_LEVELS, Target
from sparsecompile.masks.block_mask import BlockMask
from sparsecompile.operators.attention.spec import AttentionSpec
from sparsecompile.registry import default_registry

HOST = Target.host()
LEVELS = list(ISA_LEVELS)[: list(ISA_LEVELS).index(HOST.isa) + 1]
DIMS = ((64, 64), (128, 128), (20, 40), (40, 20), (72, 80), (96, 72), (33, 49), (16, 256))
GROUPS = (1, 2, 3, 8)
QUERIES = (1, 2, 7, 16, 17, 64, 130)
KEYS = (1, 31, 64, 67, 197)
MASKS = ("none", "random", "causal", "window", "heads", "sparse", "bias", "scanned")
LAYOUTS = ("contiguous", "transposed", "cache", "strided", "expanded")
THREADS = (1, 2, 5)
WAKES = Schedule.of({"region_work": 1})
"""However little there is to do, every thread gets some."""


@dataclass(frozen=True)
class AttentionCase:
    """A kernel to build, for a level of instructions."""

    isa: str
    spec: AttentionSpec

    def __str__(self) -> str:
        return f"{self.isa} {self.spec}"

    def facts(self) -> Iterator[object]:
        """All pairs of what a kernel depends on."""
        spec = self.spec
        dims = (spec.head_dim, spec.value_dim)
        parts = (self.isa, spec.dtype, dims, f"groups={spec.groups}", spec.softcap, spec.kv_dtype)
        return combinations(parts, 2)


@dataclass(frozen=True)
class CallCase:
    """A call to hold a kernel on."""

    queries: int
    keys: int
    mask: str
    bias: torch.dtype
    layout: str
    threads: int

    def facts(self) -> Iterator[object]:
        """All pairs of what a call depends on."""
        sizes = (("q", self.queries), ("kv", self.keys))
        return combinations((*sizes, self.mask, self.bias, self.layout, self.threads), 2)


@cache
def cases() -> list[AttentionCase]:
    """Few kernels, among them every pair of what they depend on."""
    every = product(LEVELS, DTYPES, DIMS, GROUPS, (False, True), (None, torch.int8))
    specs = ((isa, AttentionSpec(dtype, *d, *others)) for isa, dtype, d, *others in every)
    return covering((AttentionCase(*each) for each in specs), AttentionCase.facts)


@cache
def calls() -> list[CallCase]:
    """Few calls, among them every pair of what they depend on."""
    every = product(QUERIES, KEYS, MASKS, DTYPES, LAYOUTS, THREADS)
    return covering((CallCase(*each) for each in every), CallCase.facts)


CODEGEN = CppCodegen()


@cache
def built(
    case: AttentionCase, symbol: str = "", schedule: Schedule = WAKES
) -> Kernel[AttentionSpec]:
    """The kernel of a case; with a symbol, that function serves any number of queries."""
    template, registry = FlashAttention(), default_registry()
    target = Target(HOST.device, HOST.arch, case.isa)
    if not symbol:
        return CODEGEN.build(case.spec, template, schedule, target, registry)
    source = template.render(case.spec, schedule, target, registry)
    whole = Range(None, source.name, symbol, schedule)
    variant = Variant(template, schedule, source)
    return CODEGEN.assemble(case.spec, (variant,), (whole,), target, registry)


@dataclass(frozen=True)
class Inputs:
    """What a call takes, with its mask as a definition: which keys count, what is added."""

    q: Tensor
    k: Tensor
    v: Tensor
    allowed: Tensor | None
    bias: Tensor | None
    mask: Tensor | None
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None

    @classmethod
    def of(cls, spec: AttentionSpec, call: CallCase) -> Inputs:
        """Random ones."""
        kv_heads = 1 if spec.groups == 8 else 2
        batch, heads, q, kv = 2, kv_heads * spec.groups, call.queries, call.keys
        queries = laid_out((batch, heads, q, spec.head_dim), spec.dtype, call.layout)
        stored, shape = spec.kv_dtype or spec.dtype, (batch, kv_heads, kv)
        keys = laid_out((*shape, spec.head_dim), stored, call.layout)
        values = laid_out((*shape, spec.value_dim), stored, call.layout)
        scales: list[Tensor] = []
        if spec.kv_dtype is not None:
            # Those of keys may be one for each head.
            of_keys = (1, kv_heads, 1, 1) if call.layout == "expanded" else (*shape, 1)
            sizes = (of_keys, (*shape, 1))
            scales = [((torch.rand(size) - 0.3) / 64).to(call.bias) for size in sizes]
        allowed, bias, mask = masked(call, batch, heads)
        return cls(queries, keys, values, allowed, bias, mask, *scales)


def laid_out(shape: tuple[int, int, int, int], dtype: torch.dtype, layout: str) -> Tensor:
    """A random tensor of this shape: rows of a larger one, or dense in another order."""
    batch, heads, length, columns = shape
    if layout == "transposed":
        return drawn((batch, length, heads, columns), dtype).transpose(1, 2)
    if layout == "cache":
        return drawn((batch, heads, length + 9, columns), dtype)[:, :, :length]
    if layout == "strided":
        return drawn((batch, heads, length, 2 * columns), dtype)[..., ::2]
    if layout == "expanded":
        return drawn((1, heads, length, columns), dtype).expand(shape)
    return drawn(shape, dtype)


def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Random numbers; integers from the whole range of their type."""
    if dtype == torch.int8:
        return torch.randint(-128, 128, shape, dtype=dtype)
    return torch.randn(shape).to(dtype)


def masked(
    call: CallCase, batch: int, heads: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Which keys count, what is added to scores, and the layout that says so."""
    q, kv = call.queries, call.keys
    if call.mask == "none":
        return None, None, None
    if call.mask == "bias":
        return None, torch.randn(1, heads, q, kv).to(call.bias), None
    if call.mask == "scanned":
        # Of the first keys all count, of those behind some, and to others something is added.
        added = torch.where(torch.rand(batch, 1, q, kv) < 0.4, -float("inf"), 0.0)
        added[..., kv // 3 : kv // 2] = torch.randn(batch, 1, q, kv // 2 - kv // 3)
        added[..., q // 2, :] = -float("inf")
        added[..., : min(kv, 3)] = 0
        added = added.to(call.bias)
        layout = torch.ops.sparsecompile.scan_mask(added)
        return added > -float("inf"), added, layout
    place = torch.arange(kv) - torch.arange(q)[:, None] - (kv - q)
    allowed = {
        "random": torch.rand(batch, 1, q, kv) < 0.5,
        "heads": torch.rand(batch, heads, q, kv) < 0.5,
        "sparse": torch.rand(1, 1, q, kv) < 0.02,
        "causal": (place <= 0)[None, None],
        "window": ((place <= 0) & (place > -70))[None, None],
    }[call.mask]
    return allowed, None, BlockMask.of(allowed).layout()


def attend(
    given: Inputs, kernel: Kernel[AttentionSpec], scale: float = 0.3, cap: float = 0.0
) -> Tensor:
    """The op."""
    return torch.ops.sparsecompile.attention(  # type: ignore[no-any-return]
        *(given.q, given.k, given.v, given.mask, given.bias, scale, cap, kernel.key),
        *(given.k_scale, given.v_scale),
    )


def check_law(case: AttentionCase, kernel: Kernel[AttentionSpec], call: CallCase) -> None:
    """A kernel is at most twice as far from float64 as torch in the same dtype.

    Torch's largest error is taken of the same sums in other orders too: that of few is chance. And
    once a score may be rounded, as a sum of terms is on its way, and where it is capped.
    """
    given, spec = Inputs.of(case.spec, call), case.spec
    scale, cap = spec.head_dim**-0.5, 2.0 if spec.softcap else 0.0
    threads = torch.get_num_threads()
    torch.set_num_threads(call.threads)
    try:
        ours = attend(given, kernel, scale, cap)
    finally:
        torch.set_num_threads(threads)
    heads = given.q.shape[1]
    assert ours.shape == (2, heads, call.queries, spec.value_dim)
    assert ours.dtype == spec.dtype
    assert ours.transpose(1, 2).is_contiguous()
    wide = _Wide.of(given, spec.groups)
    known = wide.result(torch.float64, scale, cap)
    of_size = wide.result(torch.float64, scale, cap, of_sizes=True)
    terms = (wide.q.square() @ wide.k.square().transpose(2, 3)).sqrt() * scale
    eps = torch.finfo(torch.float32).eps * (1 + cap + float(terms.max())) * float(of_size.max())
    rounding = torch.finfo(spec.dtype).eps / 2 * float(known.abs().max())
    torchs = max(
        rounding, *(_error(each, known) for each in wide.in_orders(spec.dtype, scale, cap))
    )
    off = _error(ours, known)
    assert off <= 2 * torchs + eps, f"{call}: error {off:.3g}, allowed {2 * torchs + eps:.3g}"


def exact(given: Inputs, groups: int, scale: float = 0.3) -> Tensor:
    """The result in float64."""
    return _Wide.of(given, groups).result(torch.float64, scale, 0.0)


@dataclass(frozen=True)
class _Wide:
    """Inputs in float64, keys and values once for every head."""

    q: Tensor
    k: Tensor
    v: Tensor
    allowed: Tensor | None
    bias: Tensor | None

    @classmethod
    def of(cls, given: Inputs, groups: int) -> _Wide:
        k, v = given.k.double(), given.v.double()
        if given.k_scale is not None and given.v_scale is not None:
            k, v = k * given.k_scale, v * given.v_scale
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        bias = given.bias.double() if given.bias is not None else None
        return cls(given.q.double(), k, v, given.allowed, bias)

    def result(
        self, dtype: torch.dtype, scale: float, cap: float, *, of_sizes: bool = False
    ) -> Tensor:
        """Scores and sums in float32 at least, weights in the dtype; of sizes of values, if so."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        scores = self.q.to(wide) @ self.k.to(wide).transpose(2, 3) * scale
        if cap:
            scores = cap * torch.tanh(scores / cap)
        if self.bias is not None:
            scores = scores + self.bias.to(wide)
        if self.allowed is not None:
            scores = scores.masked_fill(~self.allowed, -float("inf"))
        # No key counts: nothing is summed.
        weights = torch.softmax(scores, -1).nan_to_num(0.0).to(dtype).to(wide)
        return (weights @ (self.v.abs() if of_sizes else self.v).to(wide)).to(dtype)

    def in_orders(self, dtype: torch.dtype, scale: float, cap: float) -> Iterator[Tensor]:
        """Torch's results, of columns and keys in several orders."""
        kv, d = self.k.shape[2:]
        for keys, columns in (
            (torch.arange(kv), torch.arange(d)),
            (torch.arange(kv).flip(0), torch.arange(d).flip(0)),
            (torch.randperm(kv), torch.randperm(d)),
        ):
            allowed = self.allowed[..., keys] if self.allowed is not None else None
            bias = self.bias[..., keys] if self.bias is not None else None
            # What integers and scales stand for is rounded.
            q, k, v = self.q, self.k[:, :, keys].to(dtype), self.v[:, :, keys].to(dtype)
            reordered = _Wide(q[..., columns], k[..., columns], v, allowed, bias)
            yield reordered.result(dtype, scale, cap)


def _error(result: Tensor, known: Tensor) -> float:
    return float((result.double() - known).abs().max())
