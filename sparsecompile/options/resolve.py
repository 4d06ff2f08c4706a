"""What the options select: formats, passes with their options, the target."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from sparsecompile.errors import OptionError
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Format
from sparsecompile.formats.structure import Structure
from sparsecompile.graph.rule import Pass, order
from sparsecompile.kernels.gpu import GPUS
from sparsecompile.kernels.target import ISA_LEVELS, Target
from sparsecompile.options.options import Options
from sparsecompile.options.recipes import format_name
from sparsecompile.registry import Registry


def select_formats(registry: Registry, options: Options) -> tuple[Format, ...]:
    """The formats to look for, the preferred first; `dense` stands beside them, not among them.

    Raises:
        RegistrationError: `options.formats` names one that does not exist.
        OptionError: it names one that is lossy.
    """
    if options.formats is not None:
        found = tuple(registry.format(format_name(name)) for name in options.formats)
        for lossy in (f for f in found if not f.codec.lossless):
            raise OptionError(
                "formats",
                f"{lossy} is lossy: name the structure only, {lossy.structure.name!r}, and ask "
                "for the codec with the option 'quantize'",
            )
        return tuple(f for f in found if f.structure.family != "dense")
    return tuple(
        Format(structure, codec)
        for structure in registry.all(Structure)
        if structure.family != "dense"
        for codec in registry.all(Codec)
        if codec.lossless
    )


def select_passes(registry: Registry, options: Options) -> tuple[Pass, ...]:
    """The passes to run, ordered, with their options set.

    Raises:
        OptionError: `options.passes` names a pass or a field that does not exist.
        OrderingError: passes that cannot be ordered.
    """
    chosen = dict(options.passes)
    without = chosen.pop("without", ())
    if options.prune is not None:
        chosen["prune"] = {**chosen.get("prune", {}), "recipe": options.prune}
    if options.quantize is not None:
        chosen["quantize"] = {**chosen.get("quantize", {}), "recipe": options.quantize}
    passes = {p.name: p for p in registry.all(Pass)}
    for name, p in passes.items():
        # One that measures does it as lowering does.
        if "tune" in _fields(p):
            chosen[name] = {"tune": options.tune, **chosen.get(name, {})}
    for name in (*chosen, *without):
        if name not in passes:
            raise OptionError(
                "passes", f"no pass is called {name!r}; known: {', '.join(sorted(passes))}"
            )
    return order(
        _configured(p, chosen.get(name, {})) for name, p in passes.items() if name not in without
    )


def _configured(current: Pass, given: Mapping[str, Any]) -> Pass:
    if not given:
        return current
    known = _fields(current)
    unknown = sorted(map(str, set(given) - set(known)))
    if unknown or not is_dataclass(current):
        raise OptionError(
            "passes",
            f"pass {current.name!r} has no option {', '.join(unknown)}; "
            f"known: {', '.join(known) or 'none'}",
        )
    return replace(current, **given)


def _fields(current: Pass) -> list[str]:
    return [f.name for f in fields(current)] if is_dataclass(current) else []


def select_target(options: Options) -> Target | None:
    """The target that `options.target` names; None where the model's parameters decide.

    Raises:
        OptionError: there is no such target.
    """
    if options.target == "auto":
        return None
    if options.target in GPUS:
        return Target.parse(options.target)
    host = Target.host()
    if options.target == "cpu":
        return host
    found = re.fullmatch(r"cpu\[(\w+)\]", options.target)
    known = list(ISA_LEVELS)
    levels = known[: known.index(host.isa) + 1]
    if found is None or found[1] not in levels:
        names = ", ".join(f"'{name}'" for name in ("cpu", *(f"cpu[{x}]" for x in levels), *GPUS))
        raise OptionError(
            "target", f"no target {options.target!r} on this machine; known: 'auto', {names}"
        )
    return replace(host, isa=found[1])


def gpu_of(values: Iterable[object]) -> torch.device | None:
    """The first GPU that some of a graph's parameters are on, None where there is none.

    Args:
        values: of the graph's placeholders.
    """
    tensors = (v for v in values if isinstance(v, torch.nn.Parameter))
    return next((t.device for t in tensors if t.device.type == "cuda"), None)
