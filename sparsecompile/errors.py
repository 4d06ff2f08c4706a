"""Everything sparsecompile raises, and `Reject`, the one way to refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Reject(Exception):  # noqa: N818 - a refusal is an answer, not an error
    """A guard's or a structure's refusal: what was found, where, and what was needed.

    Raised by `Structure.find`, `Rule.guard` and `Template.supports`; recorded in the `Report`
    and shown to the user. It never leaves the compiler unless `options={"strict": True}`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SparseCompileError(Exception):
    """Base of every error that reaches a user; the facts are attributes."""


class OptionError(SparseCompileError, ValueError):
    """An option that does not exist or has a value that cannot be used.

    Attributes:
        option: name of the option.
    """

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


class ModelError(SparseCompileError, TypeError):
    """Something that was given as a model and is no module."""


class RegistrationError(SparseCompileError, ValueError):
    """Something that cannot be registered: unknown kind, or a name that is already taken.

    Attributes:
        name: the name in question.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class OrderingError(SparseCompileError, ValueError):
    """Passes whose `before` and `after` contradict one another.

    Attributes:
        names: the passes in the cycle, each before the next.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(
            f"passes cannot be ordered: {' -> '.join((*names, names[0]))}; "
            "remove one of these `before`/`after` names"
        )
        self.names = names


class PassError(SparseCompileError):
    """A pass raised something other than `Reject`, or left a broken graph.

    Attributes:
        pass_name: name of the pass.
        node: name of the graph node it worked on, or None.
    """

    def __init__(self, pass_name: str, node: str | None, message: str) -> None:
        where = f" at node {node!r}" if node is not None else ""
        super().__init__(
            f"pass {pass_name!r} failed{where}: {message}; "
            f'options={{"passes": {{"without": ["{pass_name}"]}}}} compiles without it'
        )
        self.pass_name = pass_name
        self.node = node


class RejectedError(SparseCompileError):
    """Under `strict`: something that would have been left dense.

    Attributes:
        node: name of the weight in the model.
        reason: the refusal.
        zeros: its share of zeros, 0 to 1; None where it was not looked at.
    """

    def __init__(self, node: str, reason: str, zeros: float | None = None) -> None:
        share = f" ({zeros:.1%} of it is zeros)" if zeros else ""
        super().__init__(f"{node} was left dense: {reason}{share}")
        self.node = node
        self.reason = reason
        self.zeros = zeros


class BuildError(SparseCompileError):
    """The C++ compiler failed or is missing.

    Attributes:
        source: path of the generated file, or None when no compiler was found.
        stderr: what the compiler said.
    """

    def __init__(self, message: str, source: Path | None = None, stderr: str = "") -> None:
        super().__init__(message + (f"\n{stderr.strip()}" if stderr.strip() else ""))
        self.source = source
        self.stderr = stderr


class CacheError(SparseCompileError, OSError):
    """The cache folder cannot be used.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class PackedWeightError(SparseCompileError, RuntimeError):
    """A write into a packed weight.

    Attributes:
        operation: what would have written, such as `mul_`.
        format: how the weight is packed.
    """

    def __init__(self, operation: str, format: str) -> None:
        super().__init__(
            f"{operation} would write into a weight that is packed as {format}: put another "
            "parameter in its place, as load_state_dict(..., assign=True) does, and call "
            "sparsecompile.compress(model) again"
        )
        self.operation = operation
        self.format = format


class FileError(SparseCompileError, ValueError):
    """A file of weights that cannot be read.

    Attributes:
        path: the file.
        tensor: name of the tensor at fault, empty where it is the file as a whole.
    """

    def __init__(
        self,
        path: Path,
        tensor: str,
        message: str,
        remedy: str = "write it again with sparsecompile.save",
    ) -> None:
        what = f"{path}: {tensor}: {message}" if tensor else f"{path}: {message}"
        super().__init__(f"{what}; {remedy}")
        self.path = path
        self.tensor = tensor


@contextmanager
def unwrapped_by_dynamo() -> Iterator[None]:
    """Let a `SparseCompileError` pass through Dynamo as what it is.

    Dynamo wraps what a backend raises into `BackendCompilerFailed`, so that `except OptionError`
    around the first call of a model would not work, except for exceptions of one class of its own.
    """
    try:
        yield
    except SparseCompileError as error:
        # Importing it at module level would import all of Dynamo.
        from torch._dynamo.exc import ShortenTraceback

        if isinstance(error, ShortenTraceback):
            raise
        kind = type(error)
        both = type(kind.__name__, (kind, ShortenTraceback), {"__module__": kind.__module__})
        twin = both.__new__(both, *error.args)
        twin.__dict__.update(error.__dict__)
        twin.args = error.args
        twin.first_useful_frame = None
        raise twin from error
