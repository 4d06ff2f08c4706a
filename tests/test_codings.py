"""Codings: what is refused, and that the law of them finds what is wrong."""

from __future__ import annotations

import pytest
import torch
from codings import Coded

from sparsecompile import Dense, Format, Int4, Int8
from sparsecompile.formats.coding import Coding, Kind
from sparsecompile.testing.coding_laws import check_coding

WEIGHT = torch.randn(5, 70)


@pytest.mark.parametrize(("kind", "group"), [("float", 0), ("affine", None)])
def test_integers_have_scales_and_floats_none(kind: Kind, group: int | None) -> None:
    with pytest.raises(ValueError, match=f"{kind} values with scales for group={group}"):
        Coding(8, kind, group)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (Coding(16), "1400 bytes, the coding says 700"),
    ],
)
def test_floats_that_are_said_to_be_something_else(said: Coding, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_coding(Format(Dense(), Coded(said)).pack(WEIGHT))


@pytest.mark.parametrize(
    ("codec", "said", "message"),
    [
        (Int4(32), Coding(4, "affine", 64), r"scales \(5, 3\), not \(5, 2\)"),
        (Int8(), Coding(8, "affine", 0, torch.float16), "scales of torch.bfloat16"),
        (Int8(), Coding(4, "affine", 0), "360 bytes, the coding says 185"),
        (Int8(), Coding(8, "affine", 0, rounds=True), "not rounded again"),
    ],
)
def test_integers_that_are_said_to_be_something_else(
    codec: Int4 | Int8, said: Coding, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = Format(Dense(), codec).pack(WEIGHT.bfloat16())
    check_coding(packed)
    monkeypatch.setattr(type(codec), "coding", lambda *_: said)
    with pytest.raises(AssertionError, match=message):
        check_coding(packed)


def test_values_that_are_no_integers_times_their_scales() -> None:
    class Shifted(Int8):
        def decode(self, *args: object) -> torch.Tensor:
            return super().decode(*args) + 0.25  # type: ignore[arg-type]

    with pytest.raises(AssertionError, match="not what the coding says"):
        check_coding(Format(Dense(), Shifted()).pack(WEIGHT))


def test_a_codec_that_says_nothing_has_nothing_to_hold() -> None:
    check_coding(Format(Dense(), Coded()).pack(WEIGHT))
