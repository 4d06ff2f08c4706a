"""Journal: what is done already, in a folder, for a run that was killed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from sparsecompile.errors import OptionError
from sparsecompile.sparsification.report import SparsifiedWeight
from sparsecompile.sparsification.solve import Solved
from sparsecompile.sparsification.targets import Target


class Journal:
    """A file for every stage, written at once; without a folder nothing is kept.

    Args:
        folder: where; made where it is not there.
        run: stands for everything that results depend on.

    Raises:
        OptionError: the folder has another run.
    """

    def __init__(self, folder: Path | None, run: str) -> None:
        self._folder = folder
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / "run.json"
        if not known.exists():
            _write(known, json.dumps({"run": run}).encode())
        elif json.loads(known.read_text())["run"] != run:
            raise OptionError(
                "folder",
                f"{folder} has a run with another model, other patterns, another method or another "
                "calibration: load the model as it was, or give another folder",
            )

    def read(self, names: Sequence[str]) -> Solved | None:
        """What a stage came to, if it is done."""
        file = self._file(names)
        if file is None or not file.exists():
            return None
        kept = torch.load(file, weights_only=True)
        rows = [SparsifiedWeight(**{**row, "shape": tuple(row["shape"])}) for row in kept["rows"]]
        return rows, kept["parameters"]

    def write(self, names: Sequence[str], done: Solved) -> None:
        """Keep what a stage came to."""
        file = self._file(names)
        if file is not None:
            temporary = file.with_suffix(".part")
            rows, parameters = done
            torch.save({"rows": [asdict(row) for row in rows], "parameters": parameters}, temporary)
            os.replace(temporary, file)

    def _file(self, names: Sequence[str]) -> Path | None:
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        return self._folder and self._folder / f"{digest[:16]}.pt"


def identity(method: object, targets: Iterable[Target], batches: Iterable[object]) -> str:
    """Stands for a run: its method, patterns, weights and batches."""
    found = hashlib.sha256(repr(method).encode())
    for target in targets:
        found.update(f"{target.name} {target.patterns}".encode())
        _add(found, target.linear.weight)
    for batch in batches:
        _add(found, batch)
    return found.hexdigest()


def _add(found: hashlib._Hash, value: object) -> None:
    if isinstance(value, Tensor):
        found.update(f"{value.dtype} {tuple(value.shape)}".encode())
        found.update(bytes(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()))
    elif isinstance(value, Mapping):
        _add(found, [part for pair in value.items() for part in pair])
    elif isinstance(value, (tuple, list)):
        for part in value:
            _add(found, part)
    else:
        found.update(repr(value).encode())


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_suffix(".part")
    temporary.write_bytes(content)
    os.replace(temporary, file)
