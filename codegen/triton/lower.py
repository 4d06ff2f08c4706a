"""TritonCodegen: candidates -> text -> modules -> kernel of the ops; or a library call."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from sparsecompile.codegen.triton.kernel import TritonKernel, remember_kernel
from sparsecompile.codegen.triton.library import LibraryKernel
from sparsecompile.codegen.triton.module import write_module
from sparsecompile.codegen.triton.ops import load_ops
from sparsecompile.codegen.triton.template import TritonTemplate
from sparsecompile.codegen.triton.workbench import TritonWorkbench
from sparsecompile.codegen.tuning.codegen import TunedCodegen
from sparsecompile.codegen.tuning.contest import Build
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.kernels.extern import InlineExtern, PackedExtern
from sparsecompile.kernels.kernel import Kernel, Range
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.spec import KernelSpec, digest
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry

logger = logging.getLogger("sparsecompile")


class TritonCodegen(TunedCodegen):
    """Kernels for GPUs, of NVIDIA and AMD; nothing of Triton is imported before one runs."""

    device = "cuda"
    language = "triton"
    packers = (TritonTemplate, PackedExtern, InlineExtern)

    def op(self, kernel: Kernel, problem: Problem) -> Any:
        """`triton_linear`, which Inductor looks into, for linears whose m is a constant."""
        if problem.is_dynamic or problem.spec.operator != KernelSpec.operator:
            return None
        return torch.ops.sparsecompile.triton_linear.default

    def workbench(self, target: Target, registry: Registry) -> TritonWorkbench:
        """The GPU, if it is at hand."""
        return TritonWorkbench(target, registry)

    def builder(self, target: Target, registry: Registry) -> Build:
        """See `assemble`."""
        return partial(self.assemble, target=target, registry=registry)

    def assemble(
        self,
        spec: KernelSpec,
        variants: tuple[Variant, ...],
        ranges: tuple[Range, ...],
        target: Target,
        registry: Registry,
    ) -> Kernel:
        """A kernel out of functions of several modules, or calls of one library.

        Args:
            spec: what it computes.
            variants: they read one layout, which the first makes.
            ranges: by rising m, the last without an end.
            target: where it runs.
            registry: where the fragments are that make the layout.

        Raises:
            CacheError: the cache folder cannot be used.
        """
        load_ops()
        first = variants[0]
        sources = tuple(v.source for v in variants if v.source is not None)
        texts = (first.layout, *(source.text for source in sources))
        key = (int(digest(str(spec), *texts, repr(ranges), str(target))[:16], 16) >> 1) | 1
        logger.info("%s: %s", spec, ", ".join(map(str, ranges)))
        if isinstance(first.template, InlineExtern):
            return Kernel(
                key, spec, first.template, first.schedule, (), ranges, registry, device=self.device
            )
        if isinstance(first.template, PackedExtern):
            return remember_kernel(
                LibraryKernel(
                    key=key,
                    spec=spec,
                    template=first.template,
                    schedule=first.schedule,
                    sources=(),
                    ranges=ranges,
                    registry=registry,
                    device=self.device,
                )
            )
        return remember_kernel(
            TritonKernel(
                key=key,
                spec=spec,
                template=first.template,
                schedule=first.schedule,
                sources=sources,
                ranges=ranges,
                registry=registry,
                device=self.device,
                paths={source.name: write_module(source) for source in sources},
                launches=tuple(
                    replace(launch, source=v.source_name)
                    for v in variants
                    if isinstance(v.template, TritonTemplate)
                    for launch in v.template.launches(spec, v.schedule)
                ),
            )
        )


COMPONENTS = (TritonCodegen(),)
