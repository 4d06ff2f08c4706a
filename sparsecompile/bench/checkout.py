"""What is in a checkout of the repository and not in the package that is installed from it."""

from __future__ import annotations

from importlib.util import find_spec

from sparsecompile.errors import SparseCompileError


class CheckoutError(SparseCompileError):
    """A command of the repository that is not installed with the package."""


def check_checkout(command: str) -> None:
    """Return if this is a checkout.

    Args:
        command: what needs one.

    Raises:
        CheckoutError: the package is installed without the peers.
    """
    if find_spec("sparsecompile.bench.peers") is None:
        raise CheckoutError(
            f"{command} is left out of the package that is installed: run it in a checkout of the "
            "repository, after `pip install -e '.[peers]'` there"
        )
