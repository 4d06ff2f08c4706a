"""The report: as text and as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from reports import Page, any_nodes, dense, packed, report, smollm2, squeeze
from rich.cells import cell_len

from sparsecompile.graph.considered import Rewrite
from sparsecompile.report.facts import GraphReport, NodeReport
from sparsecompile.report.model import Report
from sparsecompile.report.text import WIDTH, render

GRAD = (
    "{} requires grad and gradients are enabled: call the model under torch.no_grad(), or freeze "
    "the parameter with requires_grad_(False)"
)


@given(any_nodes, st.booleans())
def test_text_fits_in_100_columns_and_cuts_no_reason_off(
    nodes: list[NodeReport], findings: bool
) -> None:
    text = render(report(nodes), findings=findings)
    assert max(map(cell_len, text.splitlines())) <= WIDTH
    for node in nodes:
        assert squeeze(node.reason) in squeeze(text)
        assert squeeze(node.lossy) in squeeze(text)
        for finding in node.findings if findings else ():
            if finding.nbytes is None:
                assert squeeze(finding.reason)[:40] in squeeze(text)


def test_text_of_a_model() -> None:
    assert (
        str(smollm2())
        == """\
210 of 211 linears packed | 269 -> 176 MB (1.53x smaller) | 1 graph | cpu x86_64 avx512

linear               count        n x k  dtype  zeros  format    kernel         dense -> packed
model.layers.{0-29}
  self_attn.q_proj      30    576 x 576  bf16   50.0%  n_m[2:4]  generic        19.9 -> 11.2 MB
  self_attn.k_proj      30    192 x 576  bf16   50.0%  n_m[2:4]  generic        6.64 -> 3.73 MB
  self_attn.v_proj      30    192 x 576  bf16   50.0%  n_m[2:4]  generic        6.64 -> 3.73 MB
  self_attn.o_proj      30    576 x 576  bf16   50.0%  n_m[2:4]  generic        19.9 -> 11.2 MB
  mlp.gate_proj         30   1536 x 576  bf16   50.0%  n_m[2:4]  generic +silu  53.1 -> 29.9 MB
  mlp.up_proj           30   1536 x 576  bf16   50.0%  n_m[2:4]  generic +mul   53.1 -> 29.9 MB
  mlp.down_proj         30   576 x 1536  bf16   50.0%  n_m[2:4]  generic        53.1 -> 29.9 MB

left dense, 1 of 211: the weight holds no zeros
lm_head                  1  49152 x 576  bf16    0.0%                                   56.6 MB"""
    )


def test_long_formats_are_wrapped_behind_commas() -> None:
    long = "dense/int4[group=32,scales=float16,minima,lossless]"
    nodes = [replace(packed("layers.0.self_attn.q_proj.weight"), format=long)]
    text = render(report(nodes))
    for part in ("  dense/  ", "  int4[group=32,\n", "  scales=float16,\n", "  minima,lossless]\n"):
        assert part in f"{text}\n"


def test_gradients_are_the_first_thing_said_when_they_prevent_everything() -> None:
    names = [f"layers.{i}.{name}.weight" for i in range(3) for name in ("up", "down")]
    nodes = [NodeReport(0, "linear", name, reason=GRAD.format(name)) for name in names]
    text = render(report([NodeReport(0, "linear", "head.weight", reason="other"), *nodes]))
    assert (
        text
        == """\
0 of 7 linears packed | 1 graph | cpu x86_64 avx512

nothing was packed, 6 of 7: the weight requires grad and gradients are enabled: call the model under
torch.no_grad(), or freeze the parameter with requires_grad_(False)
linear        count
layers.{0-2}
  up              3
  down            3

nothing was packed, 1 of 7: other
head              1"""
    )


def test_a_model_without_zeros_is_told_what_makes_some() -> None:
    text = render(report([dense("a.weight", "the weight holds no zeros")]))
    assert text.endswith(
        '\n\noptions={"prune": "2:4"} makes zeros, and changes what the model computes.'
    )
    assert "prune" not in render(smollm2())


def test_nothing_to_report() -> None:
    assert render(Report("cpu")) == "no graph was compiled yet | cpu"
    empty = GraphReport("", "", (), ())
    assert render(Report("cpu", (empty,))) == "no linear was found in 1 graph | cpu"
    assert render(Report("cpu", (empty, empty))) == "no linear was found in 2 graphs | cpu"


def test_lossy_changes_are_named() -> None:
    nodes = [packed(f"layers.{i}.up.weight", lossy="prune 2:4") for i in range(3)]
    text = render(report([*nodes, packed("head.weight", lossy="prune 1:4")]))
    changed = "the compiled model computes something else than the model"
    assert f"lossy: prune 2:4 on 3 weights: {changed}\n  layers.{{0-2}}.up\n" in f"{text}\n"
    assert f"lossy: prune 1:4 on 1 weight: {changed}\n  head\n" in f"{text}\n"
    assert "lossy" not in render(smollm2())


def test_findings_show_bytes_and_refusals_of_every_format() -> None:
    text = render(smollm2(), findings=True)
    assert (
        """
model.layers.{0-29}.self_attn.k_proj: 30 of 192 x 576 bfloat16, 221,184 bytes dense
  n_m[2:4]/float  124,416 bytes, 56.2% of dense <- chosen
  csr/float       takes 442368 bytes, dense 221184
"""
        in text
    )
    assert text.endswith(
        "lm_head: 49152 x 576 bfloat16, 56,623,104 bytes dense\n"
        "  all 2 formats  the weight holds no zeros"
    )


def test_findings_of_a_weight_nobody_could_look_at() -> None:
    nodes = [NodeReport(0, "linear", "head.weight", reason="head.weight is on cuda:0")]
    assert render(report(nodes), findings=True).endswith("\n\nhead: the weight is on cuda:0")


def test_where_kernels_are_from(tmp_path: Path) -> None:
    origins = {"a": "", "b": "/opt/kernels", "c": "/opt/kernels"}
    found = replace(smollm2(), origins=origins)
    line = "kernels: 1 built now, 2 from the cache folder /opt/kernels"
    assert line in str(found).splitlines()
    assert "kernels: " not in str(smollm2())
    assert json.loads(found.to_json())["origins"] == origins
    found.to_html(tmp_path / "report.html")
    assert line in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text


def test_colour_is_asked_for() -> None:
    assert "\x1b[" not in render(smollm2())
    colored = render(smollm2(), color=True)
    assert "\x1b[" in colored
    lines = re.sub(r"\x1b\[[0-9;]*m", "", colored).splitlines()
    assert [line.rstrip() for line in lines] == render(smollm2()).splitlines()


def test_control_characters_of_names_do_not_reach_the_terminal() -> None:
    text = render(report([dense("a\x1b[31m\nb", "it \x07 rings", 64, 64)]))
    assert "\x1b" not in text
    assert "a\\x1b[31m b" in text
    assert "it \\x07 rings" in text


def test_json_schema() -> None:
    whole = report([packed("a.weight"), dense("b.weight", "no")], (Rewrite("pack", "linear"),))
    data = json.loads(whole.to_json())
    fields = {
        "schema": int,
        "target": str,
        "graphs": int,
        "dense_bytes": int,
        "packed_bytes": int,
        "nodes": list,
        "rewrites": list,
        "read_bandwidth": type(None),
    }
    assert {name: type(data[name]) for name in fields} == fields
    assert data["schema"] == 1
    assert data["rewrites"] == [{"graph": 0, "pass": "pack", "node": "linear", "reason": ""}]
    node_fields = {
        "graph": int,
        "node": str,
        "weight": str,
        "shape": list,
        "dtype": str,
        "zeros": float,
        "findings": list,
        "format": str,
        "kernel": dict,
        "epilogue": list,
        "merged_with": list,
        "lossy": str,
        "dense_bytes": int,
        "packed_bytes": int,
        "reason": str,
        "packed": bool,
        "trials": list,
        "problem": str,
        "chosen_by": str,
    }
    first, second = data["nodes"]
    assert {name: type(first[name]) for name in node_fields} == node_fields
    assert (second["format"], second["kernel"], second["packed"]) == (None, None, False)
    assert first["kernel"].keys() >= {"spec", "template", "schedule", "source"}
    assert first["findings"][0].keys() >= {"format", "nbytes", "reason"}
