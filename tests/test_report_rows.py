"""The rows of a report: which linears share one, and how it names them."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import any_nodes, dense, packed, report, squeeze

from sparsecompile.report.facts import NodeReport
from sparsecompile.report.rows import Row, fold, outcome
from sparsecompile.report.text import render


def expand(row: Row) -> set[str]:
    """The names that a row stands for, read from its text."""
    choices = []
    for piece in re.split(r"(\{[^}]*\})", str(row)):
        if not piece.startswith("{"):
            choices.append([piece])
            continue
        ends = [run.split("-") for run in piece[1:-1].split(",")]
        choices.append([str(i) for run in ends for i in range(int(run[0]), int(run[-1]) + 1)])
    return {"".join(name) for name in product(*choices)}


@given(
    st.lists(
        st.tuples(
            st.lists(
                st.integers(0, 12).map(str) | st.sampled_from(["fc1", "fc2", "03", "up"]),
                min_size=1,
                max_size=4,
            ).map(".".join),
            st.sampled_from(["here", "there"]),
        ),
        unique=True,
    )
)
def test_rows_stand_for_exactly_the_linears_with_their_reason(
    linears: list[tuple[str, str]],
) -> None:
    rows = fold([dense(name, reason) for name, reason in linears], outcome)
    assert sum(len(row.nodes) for row in rows) == len(linears)
    for row in rows:
        assert len({node.reason for node in row.nodes}) == 1
        assert expand(row) == {node.weight for node in row.nodes}
    text = render(report([dense(name, reason) for name, reason in linears]))
    counts = re.findall(r"^ *[\w.{},-]+ +([0-9]+) +8 x 8", text, re.MULTILINE)
    assert sum(map(int, counts)) == len(linears)


@given(any_nodes)
def test_rows_never_join_different_outcomes(nodes: list[NodeReport]) -> None:
    rows = fold(nodes, outcome)
    assert sum(len(row.nodes) for row in rows) == len(nodes)
    for row in rows:
        for node in row.nodes:
            first = row.nodes[0]
            assert node.packed == first.packed
            assert (node.format, node.shape) == (first.format, first.shape)
            assert (node.epilogue, node.lossy) == (first.epilogue, first.lossy)
            assert squeeze(node.reason) == squeeze(first.reason)


def test_one_layer_that_differs_is_a_row_of_its_own() -> None:
    nodes = [packed(f"layers.{i}.up.weight") for i in range(8)]
    nodes[5] = dense("layers.5.up.weight", "the weight is an input of the model", 64, 64)
    text = render(report(nodes))
    assert "layers.{0-4,6-7}.up      7" in text
    assert "1 of 8: the weight is an input of the model\nlayers.5.up              1" in text


def test_linears_that_share_a_kernel_call_are_listed_together() -> None:
    names = [f"layers.{i}.{name}.weight" for i in range(2) for name in "qkv"]
    nodes = [
        packed(name, merged=tuple(o for o in names if o != name and o[:8] == name[:8]))
        for name in names
    ]
    text = render(report(nodes))
    assert text.endswith("\n\nmerged, one kernel call for\n  layers.{0-1}: q + k + v")


def test_long_names_are_shortened_in_the_middle_and_places_are_not() -> None:
    long = "language_model.model.decoder.transformer.first_pipeline_stage.layers"
    tail = "a_projection_with_a_name_of_remarkable_length_and_an_end"
    text = render(report([packed(f"{long}.{i}.{tail}.weight") for i in range(2)]))
    assert f"{long}.{{0-1}}\n" in text
    assert re.search(r"^  a_projec\w*…\w*an_end +2 ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ((0.5, 0.5), " 50.0%"),
        ((0.4951, 0.503), " 49.5%-50.3%"),
        ((0.00001,), " <0.1%"),
        ((0.99999,), " >99.9%"),
        ((1.0,), " 100.0%"),
    ],
)
def test_zeros_of_a_row(shares: tuple[float, ...], text: str) -> None:
    nodes = [packed(f"layers.{i}", zeros=share) for i, share in enumerate(shares)]
    assert text in render(report(nodes))


def test_long_formats_are_broken_between_structure_and_codec() -> None:
    nodes = [
        replace(
            packed(f"language_model.layers.{i}.mlp.up_projection.weight", 49152, 16384, zeros=z),
            format="n_m[2:4]/int4[group=128]",
            epilogue=("gelu_tanh", "add"),
        )
        for i, z in enumerate((0.495, 0.503))
    ]
    text = render(report(nodes))
    assert re.search(r"  n_m\[2:4\]/  ", text)
    assert re.search(r"  int4\[group=128\](  |$)", text, re.MULTILINE)
    assert "generic" in text
    nodes = [replace(node, format="dense/int4[group=32]", epilogue=()) for node in nodes]
    assert re.search(r"(  dense/  |  dense/int4\[group=32\]  )", render(report(nodes)))
