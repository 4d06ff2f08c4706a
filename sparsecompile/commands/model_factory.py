"""MODULE:FACTORY, the way commands are told which model to take."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from operator import attrgetter
from pathlib import Path
from traceback import FrameSummary
from typing import Any, NoReturn

import typer

from sparsecompile.errors import SparseCompileError

FACTORY = """\
MODULE is a dotted module name or the path of a .py file; FACTORY is a function in it that takes no
arguments and returns (model, inputs). The inputs are a tuple of arguments, a dict of keyword
arguments, or (args, kwargs). Such as `sparsecompile explain demo.py:make`, where demo.py holds"""
EXAMPLE = """\
    def make():
        return torch.nn.Linear(64, 64), (torch.randn(1, 64),)"""


class ModuleError(SparseCompileError):
    """A name or path that is no module."""


class InputError(SparseCompileError):
    """A model that does not run on its inputs.

    Args:
        target: the MODULE:FACTORY that made both.
        message: what Dynamo says of it.
        stack: where in the model it arose, the innermost call last.
    """

    def __init__(self, target: str, message: str, stack: Sequence[FrameSummary]) -> None:
        # The last of what Dynamo tells in a page; without it, all of that.
        found = re.findall(r"got (\w+)\((['\"])(.*)\2\)", message)
        reason = f"{found[-1][0]}: {found[-1][2]}" if found else message
        torch = f"{Path(sys.modules['torch'].__file__ or '').parent}{os.sep}"
        own = [frame for frame in stack if not frame.filename.startswith(torch)]
        where = "".join(f"\n  {f.filename}:{f.lineno}, in {f.name}: {f.line}" for f in own[-1:])
        super().__init__(f"the model of {target} does not run on its inputs: {reason}{where}")


def load_model(target: str) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The model, its arguments and its keyword arguments that MODULE:FACTORY stands for.

    Raises:
        typer.Exit: the text names nothing that makes a model; said on stderr.
    """
    name, colon, attribute = target.rpartition(":")
    if not colon or not name or not attribute:
        fail(f"{target!r} is not MODULE:FACTORY")
    try:
        module = import_named(name)
    except ModuleError as error:
        fail(str(error))
    try:
        factory = attrgetter(attribute)(module)
    except AttributeError:
        fail(f"{name} has no {attribute!r}")
    if not callable(factory):
        fail(f"{attribute!r} of {name} is {type(factory).__name__}, not a function")
    needed = [
        p.name
        for p in inspect.signature(factory).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if needed:
        fail(f"{target} needs arguments: {', '.join(needed)}")
    made = factory()
    if not isinstance(made, tuple) or len(made) != 2 or not callable(made[0]):
        fail(f"{target} returned {_describe(made)}, not (model, inputs)")
    model, inputs = made
    if isinstance(inputs, Mapping):
        return model, (), dict(inputs)
    if not isinstance(inputs, tuple):
        fail(f"the inputs that {target} returned are {_describe(inputs)}, not a tuple or dict")
    if len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], Mapping):
        return model, inputs[0], dict(inputs[1])
    return model, inputs, {}


def import_named(name: str) -> Any:
    """A module: a dotted name, here or installed, or the path of a .py file.

    Raises:
        ModuleError: there is none.
    """
    if not name.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # A module that the model's own module misses is not a wrong command line.
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise ModuleError(f"there is no module {error.name!r}, here or installed") from None
    path = Path(name).resolve()
    if not path.is_file():
        raise ModuleError(f"there is no file {name}")
    sys.path[:0] = [str(path.parent), str(Path.cwd())]
    # Under its own name it could hide a module that is needed, such as `torch`.
    loader = SourceFileLoader(f"_explained_{path.stem}", str(path))
    spec = ModuleSpec(loader.name, loader, origin=str(path))
    spec.has_location = True
    module = sys.modules[spec.name] = module_from_spec(spec)
    loader.exec_module(module)
    return module


def _describe(value: object) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__


def fail(message: str) -> NoReturn:
    """Leave: the command line is wrong."""
    typer.echo(f"error: {message}\n\n{FACTORY}\n\n{EXAMPLE}", err=True)
    raise typer.Exit(2)
