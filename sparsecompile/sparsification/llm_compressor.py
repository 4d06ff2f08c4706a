"""Recipes of llm-compressor: stages of modifiers, read as what `Recipe` has."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sparsecompile.errors import OptionError

_LOG = logging.getLogger(__name__)

_METHODS = {"SparseGPTModifier": "sparsegpt", "WandaPruningModifier": "wanda"}
_CONSTANT = "ConstantPruningModifier"
_OPTIONS = {"sparsegpt": {"dampening_frac": "damp", "block_size": "strip"}, "wanda": {}}
_MEANT = ("sparsity", "mask_structure", "targets", "ignore")
_UNUSED = {
    "sequential_targets": "blocks are found by themselves",
    "sequential_update": "each block reads what the sparse ones before it give",
    "offload_hessians": "moments are kept for one block",
}
_KINDS = ("Linear", "__ALL__", "__ALL_PRUNABLE__")
"""Targets that are all linears."""


def has_modifiers(data: Mapping[str, Any]) -> bool:
    """Whether it is such a recipe."""
    return any(str(key).endswith(("_stage", "_modifiers")) for key in data)


def read_modifiers(data: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Recipe` for the modifier that prunes.

    What `ConstantPruningModifier` does while training, `KeepZeros` does here.

    Raises:
        OptionError: none or several prune, or something is not known.
    """
    found = []
    for name, arguments in _modifiers(data):
        if name == _CONSTANT:
            _LOG.info("%s prunes nothing: KeepZeros keeps zeros while training", name)
        elif name in _METHODS:
            found.append((name, arguments))
        else:
            known = ", ".join((*_METHODS, _CONSTANT))
            raise OptionError("recipe", f"{name} is not known here; known are {known}")
    if len(found) > 1:
        names = ", ".join(name for name, _ in found)
        raise OptionError("recipe", f"{names} all prune: give each a file, and apply one by one")
    return _read(*found[0]) if found else {"pattern": {}, "method": "magnitude"}


def _modifiers(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, value in data.items():
        if key.endswith("_stage") and isinstance(value, Mapping):
            yield from _modifiers(value)
        elif key.endswith("_modifiers") and isinstance(value, Mapping):
            yield from ((name, arguments or {}) for name, arguments in value.items())
        elif key != "run_type":
            raise OptionError("recipe", f"{key!r} is neither a stage nor modifiers")


def _read(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    method, given = _METHODS[name], {k: v for k, v in given.items() if v is not None}
    for key, value in given.items():
        if key in _UNUSED:
            _LOG.info("%s: %r is of no use here: %s", name, key, _UNUSED[key])
        elif key not in (*_MEANT, *_OPTIONS[method]) and (key, value) != _OVER_AGAIN:
            known = ", ".join((*_MEANT, *_OPTIONS[method], *_UNUSED))
            raise OptionError("recipe", f"{name}: {key}={value!r} is not known here; {known} are")
    listed = [_regular(text) for text in _texts(given.get("targets", "Linear"))]
    ignored = [_regular(text) for text in _texts(given.get("ignore", ()))]
    barred = f"(?!{'|'.join(ignored)})" if ignored else ""
    return {
        "pattern": {f"re:{barred}(?:{'|'.join(listed)})": _pattern(name, given)},
        "method": method,
        "options": {ours: given[key] for key, ours in _OPTIONS[method].items() if key in given},
    }


_OVER_AGAIN = ("preserve_sparsity_mask", False)
"""Zeros that there are may change: the only way here."""


def _pattern(name: str, given: Mapping[str, Any]) -> str:
    """`unstructured(0.5)`, or n:m: theirs says how many of m go, ours how many stay."""
    structure, share = str(given.get("mask_structure", "0:0")), given.get("sparsity")
    found = re.fullmatch(r"(\d+):(\d+)", structure)
    if found is None:
        raise OptionError("recipe", f"{name}: mask_structure {structure!r} is not such as '2:4'")
    zeros, of = map(int, found.groups())
    if zeros:
        return f"{of - zeros}:{of}"
    if not isinstance(share, float):
        raise OptionError("recipe", f"{name}: sparsity is {share!r}, not a share such as 0.5")
    return f"unstructured({share})"


def _texts(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _regular(text: str) -> str:
    """A regular expression for what is in a module, from its name or `re:` and one for its name."""
    if text in _KINDS:
        return ""
    inside = r"(\.|$)"
    if not text.startswith("re:"):
        return re.escape(text) + inside
    expression = text.removeprefix("re:")
    return expression.removesuffix("$") + inside if expression.endswith("$") else expression
