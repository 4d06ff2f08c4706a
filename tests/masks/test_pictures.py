"""Pictures of masks."""

from __future__ import annotations

import pytest

from sparsecompile.masks.causal import Causal
from sparsecompile.masks.full import Full
from sparsecompile.masks.per_head import PerHead
from sparsecompile.masks.picture import picture, svg
from sparsecompile.masks.text import pattern_of
from sparsecompile.registry import default_registry


@pytest.mark.parametrize(
    ("text", "q", "kv", "drawn"),
    [
        ("causal", 256, 256, "▒···\n█▒··\n██▒·\n███▒"),
        ("causal & window(128)", 256, 256, "▒···\n█▒··\n▒█▒·\n·▒█▒"),
        ("prefix(70)", 70, 200, "█░··\n█░··"),
        ("prefix(70)", 2, 200, "█░··\n█░··"),
    ],
)
def test_pictures(text: str, q: int, kv: int, drawn: str) -> None:
    mask = pattern_of(text, default_registry()).blocks(q, kv)
    assert picture(mask) == drawn
    assert svg(mask).count("<rect") == 1 + sum(mark not in "·\n" for mark in drawn)


def test_pictures_of_heads_and_of_long_masks() -> None:
    mask = PerHead((Causal(), Full())).blocks(8192, 4096)
    lines = picture(mask).splitlines()
    assert [len(lines), *{len(line) for line in lines}] == [32, 32]
    assert set(picture(mask, h=1)) == {"█", "\n"}
    assert 'viewBox="0 0 256 256"' in svg(mask, h=1)
    assert 'fill-opacity="1.00"' in svg(mask, h=1)
