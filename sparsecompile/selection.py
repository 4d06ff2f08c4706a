"""What the options select: formats, passes with their options, the target."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from typing import Any

from sparsecompile.codec import Codec
from sparsecompile.errors import OptionError
from sparsecompile.options import Options
from sparsecompile.packed import Format, Structure
from sparsecompile.registry import Registry
from sparsecompile.rule import Pass, order
from sparsecompile.spec import ISA_LEVELS, Target


def select_formats(registry: Registry, options: Options) -> tuple[Format, ...]:
    """The formats to look for, the preferred first; `dense` stands beside them, not among them.

    Raises:
        RegistrationError: `options.formats` names one that does not exist.
        OptionError: it names one that is lossy.
    """
    if options.formats is not None:
        found = tuple(registry.format(name) for name in options.formats)
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
    for name in (*chosen, *without):
        if name not in passes:
            raise OptionError(
                "passes", f"no pass is called {name!r}; known: {', '.join(sorted(passes))}"
            )
    return order(
        _configured(p, chosen.get(name, {})) for name, p in passes.items() if name not in without
    )


def _configured(current: Pass, given: Any) -> Pass:
    if not given:
        return current
    known: list[str] = [f.name for f in fields(current)] if is_dataclass(current) else []
    unknown = sorted(set(given) - set(known))
    if unknown or not is_dataclass(current):
        raise OptionError(
            "passes",
            f"pass {current.name!r} has no option {', '.join(unknown)}; "
            f"known: {', '.join(known) or 'none'}",
        )
    return replace(current, **given)


def select_target(options: Options) -> Target:
    """The target that `options.target` names.

    Raises:
        OptionError: there is no such target.
    """
    host = Target.host()
    if options.target == "cpu":
        return host
    found = re.fullmatch(r"cpu\[(\w+)\]", options.target)
    known = list(ISA_LEVELS)
    levels = known[: known.index(host.isa) + 1]
    if found is None or found[1] not in levels:
        names = ", ".join(f"'cpu[{level}]'" for level in levels)
        raise OptionError(
            "target", f"no target {options.target!r} on this machine; known: 'cpu', {names}"
        )
    return replace(host, isa=found[1])
