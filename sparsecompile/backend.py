"""The entry point behind `torch.compile(model, backend="sparse")`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch._dynamo.callback import on_compile_start
from torch.fx import GraphModule

from sparsecompile.compiler import Compiler
from sparsecompile.errors import SparseCompileError, unwrapped_by_dynamo
from sparsecompile.kernels.codegen import Codegen
from sparsecompile.registry import default_registry


def sparse(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Callable[..., Any]:
    """Compile a graph with every installed plug-in; see `Compiler.__call__`."""
    with unwrapped_by_dynamo():
        return Compiler(**(options or {}))(gm, example_inputs, mode=mode, name=name)


@on_compile_start
def _start_beside_dynamo(_: object) -> None:
    """Begin what kernels for a CPU will need: tracing a model keeps one of its cores busy.

    Not where models may be on a GPU, which needs none of it.
    """
    if not torch.cuda.is_available():
        with suppress(SparseCompileError):
            default_registry().get(Codegen, "cpu").start()
