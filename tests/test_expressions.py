"""Expressions of weights: what they mean, their shapes and their texts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sparsecompile as sc
from sparsecompile.formats.expression import Shape
from sparsecompile.formats.expression_text import parse
from sparsecompile.weights.stored import store

FLOAT = sc.Format(sc.CSR(), sc.Float())
INT8 = sc.Format(sc.Dense(), sc.Int8())


def packed(*shape: int, dtype: torch.dtype = torch.float32) -> sc.Leaf[sc.Packed]:
    return sc.Leaf(FLOAT.pack(torch.randn(shape).to(dtype) * (torch.randn(shape) > 0)))


def expressions() -> st.SearchStrategy[sc.Expression[str]]:
    names = st.sampled_from(("n_m[2:4]/float", "dense/int4[group=32,scales=float16]", "csr/float"))

    def joined(
        parts: st.SearchStrategy[sc.Expression[str]],
    ) -> st.SearchStrategy[sc.Expression[str]]:
        several = st.lists(parts, min_size=2, max_size=3).map(tuple)
        return st.one_of(several.map(sc.Sum), several.map(sc.Product), several.map(sc.Stack))

    return st.recursive(names.map(sc.Leaf), joined, max_leaves=6)


@given(expressions())
def test_a_text_is_read_back(expression: sc.Expression[str]) -> None:
    assert parse(str(expression), str) == expression
    formats = parse(str(expression), sc.default_registry().format)
    assert str(formats) == str(expression)
    assert formats.map(str) == expression
    assert expression.of(range(9)).leaves() == tuple(range(len(expression.leaves())))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mean(csr, csr)", "no expression is called 'mean'; known: sum, product, stack"),
        ("sum(csr)", "a sum of 1, not of 2 or more"),
        ("product(csr)", "a product of 1, not of 2 or more"),
        ("stack()", "a stack of 0, not of 1 or more"),
        ("sum(csr, csr", "brackets do not match|no structure is called"),
        ("sum(csr), csr)", "brackets do not match in 'csr\\), csr'"),
        ("sum(csr], csr)", "brackets do not match"),
        ("sum(csr, n)", "no structure is called 'n'"),
    ],
)
def test_a_text_that_is_none(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text, sc.default_registry().format)


def test_values_are_added_and_multiplied_in_float32_and_rounded_once() -> None:
    bf16 = torch.bfloat16
    a, u, v = packed(6, 8, dtype=bf16), packed(6, 3, dtype=bf16), packed(3, 8, dtype=bf16)
    weight: sc.Expression[sc.Packed] = sc.Sum((a, sc.Product((u, v)), a))
    parts = [leaf.packed.unpack().float() for leaf in (a, u, v)]
    want = parts[0] + parts[1] @ parts[2] + parts[0]
    assert torch.equal(weight.unpack(torch.float32), want)
    assert torch.equal(weight.unpack(), want.to(bf16))
    rows = torch.tensor([5, 0, 5])
    torch.testing.assert_close(weight.rows(rows), want[rows])
    assert (weight.shape, weight.dtype, weight.exact) == ((6, 8), bf16, True)
    assert weight.nbytes == sum(leaf.nbytes for leaf in weight.leaves())
    stack = sc.Stack((a, weight))
    assert stack.shape == (2, 6, 8)
    assert torch.equal(stack.unpack()[1], weight.unpack())
    assert torch.equal(stack.rows(rows[1:2]), stack.unpack(torch.float32)[:1])


def test_a_part_that_was_rounded() -> None:
    rounded = sc.Leaf(INT8.pack(torch.randn(6, 8)))
    assert not sc.Sum((packed(6, 8), rounded)).exact


WRONG: list[tuple[sc.Expression[Shape], str]] = [
    (sc.Sum((packed(6, 8), packed(6, 9))), "a sum of 6x8 and 6x9: one shape is needed"),
    (sc.Product((packed(6, 3), packed(4, 8))), "a product of 6x3 and 4x8: n x r and r x k are"),
    (sc.Product((packed(6, 3), sc.Stack((packed(3, 8),)))), "a product of 6x3 and 1x3x8"),
    (sc.Stack((packed(6, 8), packed(6, 9))), "a stack of 6x8 and 6x9: one shape is needed"),
    (
        sc.Sum((packed(6, 8), packed(6, 8, dtype=torch.float16))),
        "parts are torch.float32 and torch.float16: one dtype is needed",
    ),
]


@pytest.mark.parametrize(("expression", "message"), WRONG)
def test_parts_that_do_not_go_together(expression: sc.Expression[sc.Packed], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store(expression)


def test_a_leaf_alone_is_a_weight_in_one_format() -> None:
    leaf = packed(6, 8)
    assert sc.PackedTensor(store(leaf)).packed is leaf.packed
    assert sc.PackedTensor(store(leaf.packed)).packed is leaf.packed


def test_a_stack_as_a_tensor() -> None:
    stack = sc.PackedTensor(store(sc.Stack((packed(6, 8), packed(6, 8)))))
    assert stack.shape == (2, 6, 8)
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(x @ stack.mT, x @ stack.packed.unpack().mT)
    assert stack.bfloat16().packed.dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="2-D"):
        torch.nn.functional.embedding(torch.tensor([0]), stack)


def test_rows_of_a_sum_as_an_embedding() -> None:
    table = sc.PackedTensor(store(sc.Sum((packed(9, 8), packed(9, 8)))))
    ids = torch.tensor([[8, 0], [3, 3]], dtype=torch.int32)
    found: Tensor = torch.nn.functional.embedding(ids, table)
    assert torch.equal(found, table.packed.unpack()[ids])
