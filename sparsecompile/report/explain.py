"""explain: a Compiler's report on a whole model, of which nothing but linears is compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from sparsecompile.errors import OptionError, unwrapped_by_dynamo
from sparsecompile.graph.compiled_model import uncompiled
from sparsecompile.report.model import Report
from sparsecompile.report.other_weights import outside_of_graphs
from sparsecompile.report.reporter import Reporter
from sparsecompile.report.strictness import check_names

Compile = Callable[[GraphModule, Sequence[Any]], Callable[..., Any]]

_UNLIMITED = 1 << 30


def explain(
    compile: Compile,
    reporter: Reporter,
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Report:
    """The report of a Compiler that has compiled nothing yet, once there are no more graphs.

    Args:
        compile: compiles a graph with that Compiler, for the report alone.
        reporter: that Compiler's.
        model: a module or function.
        args: its example inputs.
        kwargs: its example keyword inputs.

    Raises:
        OptionError: a name pattern matches no weight of the model.
        RejectedError: under `strict`, something would be left dense.
    """
    module = uncompiled(model) if isinstance(model, nn.Module) else None
    if module is not None:
        check_names(reporter.options, module)
    read: set[int] = set()

    def explaining(gm: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        read.update(map(id, inputs))
        with unwrapped_by_dynamo():
            return compile(gm, inputs)

    # A function explained often is not one whose guards fail often: past its limit Dynamo would
    # run it as it is, and there would be nothing to report.
    limits: dict[str, Any] = {
        "recompile_limit": _UNLIMITED,
        "accumulated_recompile_limit": _UNLIMITED,
    }
    with torch.no_grad(), torch._dynamo.config.patch(**limits):
        torch.compile(model, backend=explaining)(*args, **kwargs)
    for option, message in reporter.report.unmatched.items():
        raise OptionError(option, message)
    if module is not None:
        reporter.add_outside(outside_of_graphs(module, read))
    return reporter.report
