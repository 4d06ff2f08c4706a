"""The rest of the graph goes to Inductor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, cast

import torch
from torch.fx import Graph, GraphModule

from sparsecompile.errors import SparseCompileError
from sparsecompile.graph.copy import function_of
from sparsecompile.graph.timed import timed

logger = logging.getLogger("sparsecompile")
CPU_DEFAULTS: Mapping[str, Any] = {
    # The C++ wrapper calls native ops in half the time of the Python one, but only without the
    # size checks, which it does through slow calls.
    "cpp_wrapper": True,
    "size_asserts": False,
    # The wrapper is one long function: with the kernels' -O3 it takes minutes for a deep model.
    "cpp_wrapper_build_separate": True,
    "freezing": False,
}
GPU_DEFAULTS: Mapping[str, Any] = {
    # A weight that changes may take more bytes than before.
    "size_asserts": False,
    "freezing": False,
}


def compile_rest(
    module: GraphModule,
    inputs: Sequence[Any],
    weights: Sequence[torch.Tensor],
    *,
    mode: str | None,
    options: Mapping[str, Any],
    version: str,
) -> Callable[..., Any]:
    """Hand a graph to Inductor; without a C++ compiler, which it needs, run it as it is.

    Inductor asks the compiler for its version even where its cache has everything.

    Args:
        module: the graph; its last placeholders are for `weights`.
        inputs: values of the other placeholders.
        weights: packed weights (the headers of their layouts) and dense copies.
        mode: as for `torch.compile`.
        options: Inductor's own options; they win over our defaults and `mode`.
        version: stands for all our code. It enters the key of torch's caches, which do not see
            the op's fake and autograd formula.
    """
    from torch._inductor.compile_fx import compile_fx

    fake_mode = torch._guards.TracingContext.get().fake_mode
    if fake_mode is None:
        raise SparseCompileError("Dynamo has no fake mode; call the backend through torch.compile")
    # With real tensors a size that equals a sequence length would become symbolic with it.
    fakes = [fake_mode.from_tensor(weight, static_shapes=True) for weight in weights]
    on_gpu = any(isinstance(value, torch.Tensor) and value.is_cuda for value in (*inputs, *weights))
    defaults = _defaults(module, packed=bool(weights), on_gpu=on_gpu)
    patches = {**defaults, **_mode_options(mode), **options}
    stamp = _version_stamp(version, patches.get("post_grad_custom_post_pass"))
    patches["post_grad_custom_post_pass"] = stamp
    marked = patches.get("unsafe_marked_cacheable_functions", {})
    patches["unsafe_marked_cacheable_functions"] = {**marked, **_own_functions(module, version)}
    if not on_gpu and not _finds_compiler(patches):
        _warn_of_no_compiler()
        return function_of(module)
    with timed("inductor"):
        compiled: Any = compile_fx(module, [*inputs, *fakes], config_patches=patches)
    return cast("Callable[..., Any]", compiled)


def _own_functions(module: GraphModule, version: str) -> Mapping[str, str]:
    """Functions of this package in a graph: torch may keep the graph as long as these are the same.

    Else AOTAutograd traces the whole graph anew in every process.
    """
    found = (node.target for node in module.graph.nodes if node.op == "call_function")
    names = (f"{getattr(f, '__module__', '')}.{getattr(f, '__name__', '')}" for f in found)
    return {name: version for name in names if name.startswith(f"{__package__.partition('.')[0]}.")}


def compile_dense(graph: Callable[..., Any]) -> Callable[..., Any]:
    """A graph's function as Inductor compiles it without us; without a C++ compiler as it is."""
    return torch.compile(graph) if _finds_compiler({}) else graph


def _finds_compiler(options: Mapping[str, Any]) -> bool:
    """Whether Inductor can compile anything for a CPU."""
    from torch._inductor import config
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    with config.patch(dict(options)):
        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            return False
    return True


@cache
def _warn_of_no_compiler() -> None:
    logger.warning(
        "Inductor finds no C++ compiler: what is not packed runs op by op. Install one (`apt "
        "install g++`), or name one in the environment variable CXX"
    )


def _defaults(module: GraphModule, *, packed: bool, on_gpu: bool) -> Mapping[str, Any]:
    if not packed:
        # As Inductor compiles it without us.
        return {"freezing": False}
    if on_gpu:
        return GPU_DEFAULTS
    # For a region that is called twice the C++ wrapper writes code that does not compile (torch
    # 2.15); other operators with graphs inside are no trouble to it.
    region = torch.ops.higher_order.invoke_subgraph
    graphs = [inner.graph for inner in module.modules() if isinstance(inner, GraphModule)]
    regions = any(node.target is region for graph in graphs for node in graph.nodes)
    return {**CPU_DEFAULTS, "cpp_wrapper": not regions}


def _mode_options(mode: str | None) -> Mapping[str, Any]:
    if mode in (None, "default"):
        return {}
    from torch._inductor import list_mode_options

    return list_mode_options(mode)


def _version_stamp(version: str, inner: Any) -> Any:
    """A pass over Inductor's graph whose uuid is our version; runs the user's own, if any."""
    from torch._inductor.custom_graph_pass import CustomGraphPass

    class VersionStamp(CustomGraphPass):
        def __call__(self, graph: Graph) -> None:
            if inner is not None:
                inner(graph)

        def uuid(self) -> Any:
            return (version, inner.uuid() if hasattr(inner, "uuid") else repr(inner))

    return VersionStamp()
