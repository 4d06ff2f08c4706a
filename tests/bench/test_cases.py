"""How command lines spell cases."""

from __future__ import annotations

import pytest
import torch

from sparsecompile.bench.cases import LinearCase, linear_cases, split
from sparsecompile.errors import OptionError
from sparsecompile.structures.block import Block


def test_every_combination() -> None:
    cases = linear_cases("64x32, 8x16", "1,4", "bfloat16,float32", "2:4,block(16,16,0.5)")
    assert len(cases) == len(set(cases)) == 16
    assert cases[0] == LinearCase(1, 64, 32, "bfloat16", "2:4")
    assert str(cases[0]) == "64x32 m=1 bfloat16 2:4"
    assert cases[0].dense_bytes == 64 * 32 * 2
    assert {case.format for case in cases} == {"2:4", "block(16,16,0.5)"}


def test_commas_between_brackets_do_not_separate() -> None:
    text = "2:4,unstructured(0.7),block(16,16,0.5), n_m[2:4],int8[a,b]"
    parts = ["2:4", "unstructured(0.7)", "block(16,16,0.5)", "n_m[2:4]", "int8[a,b]"]
    assert split(text, "format") == parts


def test_dense_is_not_pruned() -> None:
    (dense, blocks) = linear_cases("8x8", "1", "float16", "dense,block(4,4,0.5)")
    assert dense.pruning is None
    assert blocks.pruning == (Block(4, 4), 0.5)


def test_a_low_rank() -> None:
    (case,) = linear_cases("64x32", "1", "bfloat16", "low_rank(8)")
    assert case.pruning is None
    assert case.options == {"low_rank": 0.25}
    weight = case.weight()
    assert (weight.shape, weight.dtype) == ((64, 32), torch.bfloat16)
    assert int((torch.linalg.svdvals(weight.float()) > 0.1).sum()) == 8


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("shape", "4096", "'4096' is no shape; write out features x in features"),
        ("shape", "0x4", "'0x4' is no shape"),
        ("shape", "4x4,", "no list of names between commas"),
        ("m", "0", "'0' is no number of rows"),
        ("m", "one", "'one' is no number of rows"),
        ("dtype", "int8", "'int8' is none of float32, bfloat16, float16"),
        ("format", "sparse", "cannot prune to 'sparse'; write '2:4'"),
        ("format", "5:4", "5:4 is not an n:m"),
        ("format", "unstructured(2)", "2 is not a share of zeros"),
    ],
)
def test_what_cannot_be_used(option: str, value: str, message: str) -> None:
    lists = {"shape": "8x8", "m": "1", "dtype": "float32", "format": "2:4", option: value}
    with pytest.raises(OptionError, match=message.replace("(", r"\(")):
        linear_cases(*(lists[name] for name in ("shape", "m", "dtype", "format")))
