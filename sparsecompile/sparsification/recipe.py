"""Recipe: what `sparsify` is asked for, as a file beside a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn
from typing_extensions import Self

from sparsecompile.errors import OptionError
from sparsecompile.registry import default_registry
from sparsecompile.sparsification.llm_compressor import has_modifiers, read_modifiers
from sparsecompile.sparsification.method import Method
from sparsecompile.sparsification.pattern import DENSE
from sparsecompile.sparsification.report import SparsifyReport
from sparsecompile.sparsification.sparsify import sparsify

_SUFFIXES = (".toml", ".yaml", ".yml")


@dataclass(frozen=True)
class Recipe:
    """Arguments of `sparsify` that are data.

    Attributes:
        pattern: see `sparsify`.
        method: its name.
        options: the method's own, such as `{"damp": 0.01}`.
        budget: see `sparsify`, as are the others.
    """

    pattern: str | Sequence[str] | Mapping[str, str | Sequence[str] | None]
    method: str = "sparsegpt"
    options: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, float] | None = None
    correct_bias: bool = False
    smooth: float | None = None

    def apply(
        self, model: nn.Module, calibration: Iterable[object] | None = None, **where: Any
    ) -> SparsifyReport:
        """Do it to a model, in place.

        Args:
            model: the model.
            calibration: batches.
            where: arguments of `sparsify` that say where and how it runs, such as `folder`.

        Raises:
            OptionError, ModelError: as `sparsify` does, or the method has no such option.
        """
        method: Any = default_registry().get(Method, self.method)
        known = [f.name for f in fields(method)] if is_dataclass(method) else []
        _check_keys(f"method {self.method!r}", self.options, known)
        return sparsify(
            model,
            self.pattern,
            budget=self.budget,
            method=replace(method, **self.options) if self.options else method,
            calibration=calibration,
            correct_bias=self.correct_bias,
            smooth=self.smooth,
            **where,
        )

    def to_file(self, path: str | Path) -> None:
        """Write it as TOML or YAML, as the ending of the path says.

        Raises:
            OptionError: another ending, or YAML without PyYAML.
        """
        path, data = Path(path), {k: v for k, v in asdict(self).items() if v is not None}
        if _suffix(path) == ".toml":
            text = "".join(f"{key} = {_toml(value)}\n" for key, value in data.items())
        else:
            text = _module("yaml", path).safe_dump(data, sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read what `to_file` wrote, or a recipe of llm-compressor that prunes in one step.

        Raises:
            OptionError: it cannot be read, or has keys that are not known.
        """
        path = Path(path)
        try:
            data = _parse(path)
            if isinstance(data, Mapping) and has_modifiers(data):
                data = read_modifiers(data)
            if not isinstance(data, Mapping) or "pattern" not in data:
                raise OptionError("recipe", "it has no 'pattern', such as \"2:4\"")
            _check_keys("the recipe", data, [f.name for f in fields(cls)])
        except OptionError as error:
            raise OptionError("recipe", f"{path}: {error}") from error
        return cls(**data)


def _check_keys(what: str, given: Iterable[str], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            names = ", ".join(known)
            raise OptionError("recipe", f"{what} has no option {key!r}; it has: {names}")


def _suffix(path: Path) -> str:
    if path.suffix not in _SUFFIXES:
        raise OptionError("recipe", f"{path}: a recipe is a file {', '.join(_SUFFIXES)}")
    return path.suffix


def _parse(path: Path) -> Any:
    toml = _suffix(path) == ".toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError("recipe", f"cannot be read: {error}") from error
    module = _module("tomllib" if toml else "yaml", path)
    load, refusal = (
        (module.loads, module.TOMLDecodeError) if toml else (module.safe_load, module.YAMLError)
    )
    try:
        return load(text)
    except refusal as error:
        raise OptionError("recipe", f"is no {'TOML' if toml else 'YAML'}: {error}") from error


def _module(name: str, path: Path) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        where = {"tomllib": "Python 3.11", "yaml": "PyYAML: pip install pyyaml"}
        raise OptionError("recipe", f"{path.suffix} needs {where[name]}") from error


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    # Strings, numbers and booleans are spelt alike; there is no null.
    return json.dumps(DENSE if value is None else value, ensure_ascii=False)
