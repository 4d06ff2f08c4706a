"""The entry point behind `torch.compile(model, backend="sparse")`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import GraphModule

from sparsecompile.compiler import Compiler
from sparsecompile.errors import unwrapped_by_dynamo


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
