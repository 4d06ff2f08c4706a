"""Specialization: a Triton function with what is fixed when it is compiled, and its compilation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecompile.codegen.triton.compiled import kept_here
from sparsecompile.codegen.triton.inspection.architecture import Architecture
from sparsecompile.codegen.triton.module import import_module, write_module
from sparsecompile.codegen.triton.template import TritonTemplate
from sparsecompile.codegen.triton.version import triton_version
from sparsecompile.errors import BuildError
from sparsecompile.kernels.spec import S, Schedule, digest
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry

if TYPE_CHECKING:
    from triton.compiler import CompiledKernel
    from triton.runtime.jit import JITFunction

ALIGNMENT = 16
"""What `divisible` arguments are multiples of: pointers in bytes, integers in ones."""


@dataclass(frozen=True, eq=False)
class Specialization:
    """What one launch of a Triton function compiles.

    Attributes:
        function: what `triton.jit` gave.
        types: of its arguments that are no constants, by name: `*fp16`, `i32`.
        constants: its `tl.constexpr` arguments, by name.
        divisible: arguments that are multiples of `ALIGNMENT`.
        options: of the compiler: `num_warps`, `num_stages`, and what a backend has besides.
    """

    function: JITFunction[Any]
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    divisible: frozenset[str] = frozenset()
    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the function."""
        return str(self.function.__name__)

    @property
    def file(self) -> str:
        """Path of the source."""
        return inspect.getsourcefile(self.function.fn) or ""

    @property
    def identity(self) -> str:
        """Stands for all of it, the text of everything that the function calls included."""
        parts = (self.types, self.constants, dict.fromkeys(self.divisible), self.options)
        return digest(self.function.cache_key, *(repr(sorted(part.items())) for part in parts))

    def line(self, number: int) -> str:
        """A line of the source, without spaces around it; empty where there is none."""
        lines, first = inspect.findsource(self.function.fn)[0], number - 1
        return lines[first].strip() if 0 <= first < len(lines) else ""


def specialize(
    spec: S,
    template: TritonTemplate[S],
    schedule: Schedule,
    target: Target,
    registry: Registry,
    shape: tuple[int, ...] = (),
) -> dict[str, Specialization]:
    """What each launch of a template's schedule compiles, by symbol, for aligned sizes.

    Args:
        spec: what is computed.
        template: how.
        schedule: of the template.
        target: a GPU.
        registry: where the fragments are.
        shape: as in `Problem.shape`, that launches are split for; the template's usual one by
            default.

    Raises:
        BuildError: there is no Triton.
        CacheError: the cache folder cannot be used.
    """
    module = import_module(write_module(template.render(spec, schedule, target, registry)))
    found = {}
    for launch in template.launches(spec, schedule):
        signature = template.signature(spec, launch, shape or tuple(template.usual.values()))
        found[launch.symbol] = Specialization(
            getattr(module, launch.function),
            {name: kind for name, kind in signature.types.items() if kind != "constexpr"},
            signature.constants,
            frozenset(signature.divisible),
            {"num_warps": launch.warps, "num_stages": launch.stages},
        )
    return found


def compile_for(what: Specialization, architecture: Architecture) -> CompiledKernel:
    """Compile for an architecture; neither a GPU nor a driver is needed.

    Raises:
        BuildError: Triton is not installed or cannot compile it.
    """
    version = triton_version()
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.errors import TritonError

    names = what.function.arg_names
    source = ASTSource(
        what.function,
        {name: what.types.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in what.constants.items()},
        attrs={(names.index(n),): [["tt.divisibility", ALIGNMENT]] for n in what.divisible},
    )
    target = GPUTarget(*architecture.triton)
    # Triton 3.10 no longer fuses multiply and add unless it is told to.
    options = {"enable_fp_fusion": True, **what.options}
    try:
        with kept_here():
            return triton.compile(source, target=target, options=options)
    except (TritonError, RuntimeError) as error:
        raise BuildError(
            f"Triton {version} cannot compile {what.name} for {architecture.name}",
            Path(what.file),
            str(error),
        ) from error
