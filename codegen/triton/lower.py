"""TritonCodegen: spec -> candidates -> choice -> text -> module -> kernel of the ops."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch

from sparsecompile.codegen.candidates import Candidate as Found
from sparsecompile.codegen.candidates import find_candidates
from sparsecompile.codegen.sources import sources_digest
from sparsecompile.codegen.triton.choose import Candidate, choose
from sparsecompile.codegen.triton.kernel import TritonKernel, remember_kernel
from sparsecompile.codegen.triton.module import write_module
from sparsecompile.codegen.triton.ops import load_ops
from sparsecompile.codegen.triton.template import TritonTemplate
from sparsecompile.packed import Packed
from sparsecompile.problem import Contents, Problem
from sparsecompile.registry import Registry
from sparsecompile.spec import KernelSpec, Schedule, Target, digest
from sparsecompile.template import Codegen, Kernel, Lowering, Range

logger = logging.getLogger("sparsecompile")


class TritonCodegen(Codegen):
    """Kernels for GPUs, of NVIDIA and AMD; nothing of Triton is imported before one runs."""

    device = "cuda"

    def sources_digest(self) -> str:
        """Stands for every file of this package."""
        return sources_digest()

    def candidates(self, spec: KernelSpec, target: Target, registry: Registry) -> list[Found]:
        """See `find_candidates`.

        Raises:
            Reject: no candidates; every refusal is in the reason.
        """
        return find_candidates("triton", spec, target, registry)

    def op(self, kernel: Kernel, problem: Problem) -> Any:
        """`triton_linear`, which Inductor looks into, where m is a constant; else `linear`."""
        if problem.is_dynamic:
            return super().op(kernel, problem)
        return torch.ops.sparsecompile.triton_linear.default

    def lower(
        self,
        problems: Mapping[Problem, Callable[[], Packed]],
        target: Target,
        registry: Registry,
    ) -> dict[Problem, Lowering]:
        """Choose by the cost model and write the modules; see `choose`.

        Raises:
            Reject: no candidates.
            CacheError: the cache folder cannot be used.
        """
        return {p: self._lower(p, sample, target, registry) for p, sample in problems.items()}

    def _lower(
        self,
        problem: Problem,
        sample: Callable[[], Packed],
        target: Target,
        registry: Registry,
    ) -> Lowering:
        spec = problem.spec
        candidates = [
            self.candidate(spec, template, schedule, target, registry)
            for template, schedule in self._templates(spec, target, registry)
        ]
        choice = choose(problem, candidates, Contents(sample()), target.gpu)
        if choice.is_dense:
            return Lowering(None, (), f"the dense linear is no slower ({choice.reason})")
        kernel = self.assemble(spec, choice.candidate, choice.ranges, target, registry)
        return Lowering(kernel, (), choice.reason)

    def _templates(
        self, spec: KernelSpec, target: Target, registry: Registry
    ) -> list[tuple[TritonTemplate, Schedule]]:
        pairs = (c for c in self.candidates(spec, target, registry) if isinstance(c, tuple))
        return [(t, s) for t, s in pairs if isinstance(t, TritonTemplate)]

    def candidate(
        self,
        spec: KernelSpec,
        template: TritonTemplate,
        schedule: Schedule,
        target: Target,
        registry: Registry,
    ) -> Candidate:
        """A template and schedule, rendered."""
        source = template.render(spec, schedule, target, registry)
        return Candidate(template, schedule, source, template.launches(spec, schedule))

    def build(
        self,
        spec: KernelSpec,
        template: TritonTemplate,
        schedule: Schedule,
        target: Target,
        registry: Registry,
    ) -> TritonKernel:
        """The kernel of one template and schedule, which serves every m.

        Raises:
            CacheError: the cache folder cannot be used.
        """
        candidate = self.candidate(spec, template, schedule, target, registry)
        name = candidate.source.name
        ranges = tuple(Range(m, name, symbol, schedule) for symbol, m in candidate.source.kernels)
        return self.assemble(spec, candidate, ranges, target, registry)

    def assemble(
        self,
        spec: KernelSpec,
        candidate: Candidate,
        ranges: tuple[Range, ...],
        target: Target,
        registry: Registry,
    ) -> TritonKernel:
        """A kernel out of functions of one module, known to the ops.

        Args:
            spec: what it computes.
            candidate: the module.
            ranges: by rising m, the last without an end.
            target: where it runs.
            registry: where the fragments are that make the layout.

        Raises:
            CacheError: the cache folder cannot be used.
        """
        load_ops()
        source = candidate.source
        text = digest(str(spec), source.text, repr(ranges), str(target))
        logger.info("%s: %s", spec, ", ".join(map(str, ranges)))
        return remember_kernel(
            TritonKernel(
                key=(int(text[:16], 16) >> 1) | 1,
                spec=spec,
                template=candidate.template,
                schedule=candidate.schedule,
                sources=(source,),
                ranges=ranges,
                registry=registry,
                device="cuda",
                path=write_module(source),
                launches=candidate.launches,
            )
        )


COMPONENTS = (TritonCodegen(),)
