"""What is compared on a GPU: cuBLAS, torch's 2:4 libraries, torchao, and the packed formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsecompile.bench.cases import DTYPES, LinearCase
from sparsecompile.codegen.triton.linear import TritonLinear
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.kernels.extern import Extern, PackedExtern
from sparsecompile.kernels.ops import linear
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template
from sparsecompile.registry import Registry

DENSE = "cuBLAS"
Run = Callable[[], Tensor]


class PrunedWeight:
    """A random weight, and it in formats, each packed once.

    Args:
        case: whose shape, dtype and zeros it has.

    Raises:
        OptionError: the format cannot be pruned to.
    """

    def __init__(self, case: LinearCase) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weight = case.weight(generator)
        self._packed: dict[Format, Packed] = {}

    def packed(self, form: Format) -> Packed:
        """The weight in a format.

        Raises:
            Reject: it does not have the structure.
        """
        if form not in self._packed:
            self._packed[form] = form.pack(self.weight)
        return self._packed[form]


@lru_cache(maxsize=1)
def _pruned(case: LinearCase) -> PrunedWeight:
    return PrunedWeight(case)


@dataclass(frozen=True, eq=False)
class Subject:
    """A case with its tensors.

    Attributes:
        case: the case.
        pruned: the weight, `[n, k]`, on the CPU.
        x: `[m, k]`, on the GPU.
    """

    case: LinearCase
    pruned: PrunedWeight
    x: Tensor

    @classmethod
    def of(cls, case: LinearCase, device: torch.device) -> Subject:
        """Random values, the weight pruned to the case's format.

        Cases that differ in m only and follow each other share the weight.

        Raises:
            OptionError: the format cannot be pruned to.
        """
        x = torch.randn(case.m, case.k, generator=torch.Generator().manual_seed(1))
        return cls(case, _pruned(replace(case, m=1)), x.to(DTYPES[case.dtype]).to(device))

    @property
    def weight(self) -> Tensor:
        """The dense weight."""
        return self.pruned.weight


@dataclass(frozen=True, eq=False)
class Contestant:
    """One way to compute a case.

    Attributes:
        name: `cuBLAS`, `cusparselt`, `n_m[2:4]/int4[group=128] tiles`.
        make: gets it ready: the call, the bytes of its weight, and the weight that it multiplies
            with, `[n, k]` on the CPU.
    """

    name: str
    make: Callable[[], tuple[Run, int, Tensor]]


def contestants(
    subject: Subject, target: Target, registry: Registry, codecs: Sequence[str]
) -> Iterator[Contestant]:
    """All that fit a case, the dense one first.

    Args:
        subject: the case.
        target: the GPU.
        registry: where templates and library calls are.
        codecs: of the packed formats, such as `float` and `int4[group=128]`.
    """
    yield Contestant(DENSE, partial(_dense, subject))
    structure = registry.structure("dense")
    if subject.case.pruning is not None:
        structure = subject.case.pruning[0]
    dtype = subject.weight.dtype
    plain = KernelSpec(Format(structure, registry.codec("float")), dtype)
    for extern in registry.all(Extern):
        if isinstance(extern, PackedExtern) and _is_supported(
            partial(extern.supports, plain, target)
        ):
            yield Contestant(
                extern.name, partial(_library, subject, extern, plain, target, registry)
            )
    if find_spec("torchao") is not None and subject.case.pruning is None:
        yield Contestant("torchao int4", partial(_torchao, subject))
    for codec in codecs:
        spec = KernelSpec(Format(structure, registry.codec(codec)), dtype)
        for template in registry.all(Template):
            if not isinstance(template, TritonLinear):
                continue
            if _is_supported(partial(template.supports, spec, target, registry)):
                make = partial(_packed, subject, template, spec, target, registry)
                yield Contestant(f"{spec.format} {template.name}", make)


def _is_supported(supports: Callable[[], None]) -> bool:
    try:
        supports()
    except Reject:
        return False
    return True


def _dense(subject: Subject) -> tuple[Run, int, Tensor]:
    weight, x = subject.weight.to(subject.x.device), subject.x
    return lambda: F.linear(x, weight), weight.nbytes, subject.weight


def _library(
    subject: Subject, extern: PackedExtern, spec: KernelSpec, target: Target, registry: Registry
) -> tuple[Run, int, Tensor]:
    packed, x = subject.pruned.packed(spec.format), subject.x
    schedule = extern.schedules(spec, target)[0]
    given = extern.prepack(packed, schedule, registry).to(x.device)
    layout, n = extern.finish(given, packed.shape, packed.dtype), packed.shape[0]
    return lambda: extern.call(x, layout, None, n, schedule), layout.nbytes, packed.unpack()


def _packed(
    subject: Subject,
    template: TritonLinear,
    spec: KernelSpec,
    target: Target,
    registry: Registry,
) -> tuple[Run, int, Tensor]:
    packed = subject.pruned.packed(spec.format)
    schedule = template.schedules(spec, target)[0]
    kernel = TritonCodegen().build(spec, template, schedule, target, registry)
    x, n = subject.x, packed.shape[0]
    layout = kernel.prepack(packed).to(x.device)
    exact = packed.unpack(torch.float32)
    return lambda: linear(x, layout, None, (), n, kernel.key), layout.nbytes, exact


def _torchao(subject: Subject) -> tuple[Run, int, Tensor]:
    """Its int4 weights in groups of 128, for what it does not say how they are stored."""
    quantization: Any = import_module("torchao.quantization")

    n, k = subject.weight.shape
    layer = nn.Linear(k, n, bias=False, device="meta", dtype=subject.weight.dtype)
    layer.weight = nn.Parameter(subject.weight.to(subject.x.device), requires_grad=False)
    model: Any = nn.Sequential(layer)
    quantization.quantize_(model, quantization.Int4WeightOnlyConfig(group_size=128))
    compiled: Any = torch.compile(model)
    x = subject.x
    return lambda: compiled(x), n * k // 2 + n * k // 128 * 4, subject.weight
