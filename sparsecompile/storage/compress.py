"""compress: packed weights take the place of the dense ones in a model."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule
from torch.nn import functional as F

from sparsecompile.compiler import Compiler
from sparsecompile.errors import OptionError, RejectedError
from sparsecompile.formats.expression import Expression, PackedExpr
from sparsecompile.formats.names import decomposition_of, format_of
from sparsecompile.formats.packed import Packed
from sparsecompile.graph.compiled_model import names_of
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.pattern import Call
from sparsecompile.graph.rule import run_passes
from sparsecompile.graph.weight_view import WeightView
from sparsecompile.operators.linear.packed import packed_linears
from sparsecompile.operators.linear.spellings import LINEAR
from sparsecompile.options.recipes import check_patterns
from sparsecompile.weights.expression import Apply, evaluate, lossy
from sparsecompile.weights.packed_tensor import PackedTensor
from sparsecompile.weights.packing import pack_binding
from sparsecompile.weights.parts import part
from sparsecompile.weights.stored import store

logger = logging.getLogger("sparsecompile")

OPTIONS = ("formats", "passes", "prune", "low_rank", "quantize", "detect", "strict")
"""Those of `Options` that say what becomes of weights."""
REASONS = 3
"""How many a warning has; the log has all of them."""

COMPUTED = (
    "its weight is computed: torch.nn.utils.prune.remove or "
    "torch.nn.utils.parametrize.remove_parametrizations make it a parameter"
)

M = TypeVar("M", bound=nn.Module)


def compress(model: M, **options: Any) -> M:
    """Put packed weights in the place of the dense ones of a model's `nn.Linear` modules.

    In place: each weight becomes a frozen `PackedTensor` wherever the model holds it, so that a
    tied embedding reads rows of the same packed weight, and the dense one is freed unless somebody
    else holds it. The model still runs as it is, and `torch.compile(model, backend="sparse")` takes
    the packed weights as they are. Passes choose the format as they do for a compiled model for
    which nothing is measured; weights that no format makes smaller stay as they are, and the log
    says why, with a warning where all of them do. Without `prune`, `low_rank` and `quantize` every
    value stays what it is, but for rounding where a low rank is found.

    Args:
        model: a module on the CPU.
        options: `prune`, `low_rank`, `quantize`, `detect`, `formats`, `passes`, `strict`, as in
            `Options`; names of weights that patterns are held against are those of
            `model.named_parameters()`.

    Returns:
        The model.

    Raises:
        OptionError: another option, one that cannot be used, a pattern that matches no weight of
            an `nn.Linear`, or a quantisation of activations, which is no property of a weight.
        RejectedError: under `strict`, a weight stays dense although it holds zeros or was asked to
            be pruned or quantised. Weights before it are packed already.
    """
    for name in options:
        if name not in OPTIONS:
            raise OptionError(
                name, f"compress takes no option {name!r}; known: {', '.join(OPTIONS)}"
            )
    compiler = Compiler(**options, tune="off")
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    weights = {id(m._parameters.get("weight")) for m in linears.values()}
    named = [(n, p) for n, p in model.named_parameters() if id(p) in weights]
    aliases = {key: names for key, names in names_of(model).items() if key in weights}
    known = {f"{name}.weight".removeprefix(".") for name in linears}.union(*aliases.values())
    check_patterns(compiler.options.recipes(), sorted(known))
    left: dict[str, str] = {} if linears else {"the model has no nn.Linear": ""}
    for name, linear in linears.items():
        if "weight" not in linear._parameters:
            logger.info("%s: dense: %s", name, COMPUTED)
            left.setdefault(COMPUTED, name)
    while named:
        # Nothing else may hold a weight, or it would not be freed before the next is packed.
        name, weight = named.pop(0)
        if type(weight) is nn.Parameter:
            with torch.no_grad():
                new, reason = compressed(aliases[id(weight)], weight, compiler)
                swap(model, weight, new)
            if reason:
                logger.info("%s: dense: %s", name, reason)
                left.setdefault(reason, name)
            del new
        del weight
    if not any(isinstance(parameter, PackedTensor) for parameter in model.parameters()):
        reasons = [f"{name}: {reason}" if name else reason for reason, name in left.items()]
        more = [f"{len(reasons) - REASONS} more reasons"] if len(reasons) > REASONS else []
        logger.warning("compress packed no weight: %s", "; ".join((*reasons[:REASONS], *more)))
    return model


def swap(model: nn.Module, old: nn.Parameter, new: Tensor) -> None:
    """Put a weight in the place of another, wherever the model holds it."""
    if new is old:
        return
    trains = old.requires_grad and not isinstance(new, PackedTensor)
    parameter = nn.Parameter(new, requires_grad=trains)
    for module in model.modules():
        for name, held in module._parameters.items():
            if held is old:
                module._parameters[name] = parameter


def compressed(
    names: tuple[str, ...], weight: nn.Parameter, compiler: Compiler
) -> tuple[Tensor, str]:
    """What the compiler's passes make of a linear's weight; if it is not packed, why.

    Raises:
        OptionError: they round activations.
        RejectedError: under `strict`, they do not pack it although they should.
    """
    edit = _edit(names, weight, compiler)
    run_passes(compiler.passes, edit)
    (output,) = (node for node in edit.nodes() if node.op == "output")
    result = output.args[0]
    packed = _packed(edit, (weight.shape[0], weight.shape[1]))
    if packed is not None:
        stored = store(packed)
        logger.info("%s: %s, %s", names[0], stored.format, "exact" if packed.exact else "rounded")
        return PackedTensor(stored), ""
    considered = list(edit.considered.values())
    survey = considered[-1].survey if considered else None
    packing = ("prune", "find_low_rank", "quantize", "fold_quantized", "pack_linear")
    reasons = [r.reason for r in edit.rewrites if r.reason and r.pass_name in packing]
    reason = "; ".join(dict.fromkeys(reasons)) or "no pass packed it"
    options = compiler.options
    if options.strict and ((survey and survey.zeros) or options.changes_weights):
        raise RejectedError(names[0], reason, survey.zeros if survey else None)
    linear = Call(LINEAR, ("x", "weight", "bias")).match(result)
    if linear is not None and edit.weights.is_function(linear["weight"]):
        binding = edit.binding(linear["weight"])
        if lossy(binding):
            return evaluate(binding, edit.weights.live(binding)), reason
    return weight, reason


def _packed(edit: Edit, shape: tuple[int, int]) -> Packed | PackedExpr | None:
    """What passes packed the one weight of a graph as, if they did.

    Raises:
        OptionError: they round activations.
    """
    parts: dict[int, Packed] = {}
    form: Expression[Any] | None = None
    for match in packed_linears(edit):
        if match["activations"] != "float":
            raise OptionError(
                "quantize",
                f"{match['activations']} activations are no property of a weight: compress with "
                "'int8-weight-only', and give 'int8' to torch.compile",
            )
        binding = edit.binding(match["weight"])
        packed = pack_binding(binding, edit.weights.live(binding), format_of(match["format"]))
        if not isinstance(binding, Apply) or binding.function is not part:
            return packed
        _, of, index = binding.args
        found = decomposition_of(of)
        is_exact = packed.exact and found.exact and not found.tolerance(packed.dtype)
        parts[index], form = replace(packed, exact=is_exact), found.form(shape)
    return form.of(packed for _, packed in sorted(parts.items())) if form is not None else None


def _edit(names: tuple[str, ...], weight: nn.Parameter, compiler: Compiler) -> Edit:
    """A graph of one linear of the weight, as a compiled model's has it."""
    graph = Graph()
    x, w = graph.placeholder("x"), graph.placeholder("weight")
    linear = graph.call_function(F.linear, (x, w, None))
    graph.output(linear)
    module = GraphModule(nn.Module(), graph)
    like = torch.empty_like(weight, device="meta")
    x.meta["example_value"] = like.new_empty(1, like.shape[1])
    w.meta["example_value"] = like
    linear.meta["example_value"] = like.new_empty(1, like.shape[0])
    view = WeightView(module, [None, weight], grad=False, names={id(weight): names})
    return Edit(module, view, compiler.formats, compiler.device)
