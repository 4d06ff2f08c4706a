"""Mask patterns as texts, and what is said of texts and matrices that are none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sparsecompile.errors import OptionError, SparseCompileError
from sparsecompile.masks.around import Around
from sparsecompile.masks.bigbird import BigBird
from sparsecompile.masks.causal import Causal
from sparsecompile.masks.chunked import Chunked
from sparsecompile.masks.dilated import Dilated
from sparsecompile.masks.documents import Documents
from sparsecompile.masks.fixed import Fixed
from sparsecompile.masks.full import Full
from sparsecompile.masks.global_tokens import Global
from sparsecompile.masks.padding import Padding
from sparsecompile.masks.pattern import MaskPattern
from sparsecompile.masks.prefix import Prefix
from sparsecompile.masks.strided import Strided
from sparsecompile.masks.text import pattern_of
from sparsecompile.masks.window import Window
from sparsecompile.registry import default_registry


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("window(size=4)", Window(4)),
        (" causal&window( 4 ) ", Causal() & Window(4)),
        ("around(4)|global(2)", Around(4) | Global(2)),
        ("causal & (full)", Causal() & Full()),
        ("bigbird(3,2,3,64,seed=7)", BigBird(3, 2, 3, 64, seed=7)),
        ("fixed(128,8)", Fixed(128, 8)),
        ("documents(0*2 / 0*1,1*2)", Documents(torch.zeros(1, 2), torch.tensor([[0, 1, 1]]))),
    ],
)
def test_texts(text: str, pattern: MaskPattern) -> None:
    found = pattern_of(text, default_registry())
    assert found == pattern
    assert hash(found) == hash(pattern)
    assert pattern_of(str(pattern), default_registry()) == pattern


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("windw(4)", "no mask is called 'windw'; did you mean 'window'?"),
        ("zzz", "no mask is called 'zzz'; known: around, bigbird, causal, chunked, dilated"),
        ("", "no mask is called ''; known: "),
        ("causal &", "no mask is called ''; known: "),
        ("window(4", r"no mask 'window\(4': its parentheses do not match"),
        ("window)4(", "its parentheses do not match"),
        ("causal(4)", r"no mask 'causal\(4\)': it takes nothing, not '4'"),
        ("window(4,5)", "it takes size, not '5'"),
        ("window(width=4)", "it takes size, not 'width=4'"),
        ("window", "no mask 'window': it needs size"),
        ("bigbird(3,global=2)", "it needs random, block"),
        ("window(x)", "invalid literal"),
        ("window(0)", "window: size is 0; it needs 1 or more"),
        ("around(-1)", "around: distance is -1; it needs 0 or more"),
        ("bigbird(3,-1,3,64)", "bigbird: global is -1; it needs 0 or more"),
        ("documents(0*2;1*3)", r"rows have \[2, 3\] places; give them one length"),
        ("padding(1*2;0*2) & documents(0*2;1*2;2*2)", r"parts of it have batch \[2, 3\]"),
        ("per_head(full;full) & per_head(full;full;full)", r"parts of it have heads \[2, 3\]"),
    ],
)
def test_texts_that_are_none(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as error:
        pattern_of(text, default_registry())
    assert error.value.option == "attention"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (Global(9), r"global\(9\) names 9 tokens, there are 8; name at most those"),
        (Causal() & Global(9), "names 9 tokens"),
        (Padding(torch.ones(1, 5, dtype=torch.bool)), "padding: 5 keys, .* positions up to 7"),
        (Documents(torch.zeros(1, 5)), "documents: 5 ids of queries, .* positions up to 7"),
        (Documents(torch.zeros(1, 5), torch.zeros(1, 8)), "documents: 5 ids of keys"),
    ],
)
def test_matrices_that_patterns_do_not_fit(pattern: MaskPattern, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        pattern.blocks(8, 8)


@pytest.mark.parametrize(
    "kind", [Window, Chunked, Prefix, Global, Strided, Fixed, lambda n: Dilated(n, n)]
)
def test_numbers_of_tokens_are_positive(kind: Any) -> None:
    with pytest.raises(SparseCompileError, match="it needs 1 or more"):
        kind(0)


def test_lengths() -> None:
    assert str(Padding.of_lengths(torch.tensor([2, 3]), 3)) == "padding(1*2,0*1;1*3)"
