"""The names of `sparsecompile` are imported at their first use, and are there as if at once."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import sparsecompile as sc


def test_type_checkers_see_them_where_they_are() -> None:
    tree = ast.parse(Path(sc.__file__).read_text(encoding="utf-8"))
    (block, _) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: found.module
        for found in block.body
        if isinstance(found, ast.ImportFrom) and found.module != "torch.nn"
        for alias in found.names
    }
    assert seen == sc._MODULES
    assert {*seen, "explain", "refresh", "register"} == {*sc.__all__, "Int8Cache"}


def test_they_are_themselves() -> None:
    for name in sc.__all__:
        value = getattr(sc, name)
        assert vars(sc)[name] is value
        assert name in dir(sc)
        if isinstance(value, type):
            assert pickle.loads(pickle.dumps(value)) is value


def test_others_are_missing() -> None:
    with pytest.raises(AttributeError, match="module 'sparsecompile' has no attribute 'Compilre'"):
        _ = sc.Compilre
    with pytest.raises(ImportError, match="cannot import name 'Compilre' from 'sparsecompile'"):
        from sparsecompile import Compilre  # noqa: F401


def test_each_can_be_the_first() -> None:
    script = """
import os, torch, sparsecompile
for name in sparsecompile.__all__:
    if not os.fork():
        try:
            getattr(sparsecompile, name)
        except BaseException as error:
            print(name, error, flush=True)
        finally:
            os._exit(0)
    os.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == ""
