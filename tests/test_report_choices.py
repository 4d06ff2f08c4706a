"""What a report says of measurements."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from reports import Page, dense, packed, report

from sparsecompile.kernels.trial import Trial
from sparsecompile.report.facts import GraphReport, NodeReport
from sparsecompile.report.model import Report
from sparsecompile.report.text import render

DECODE = "strips batch_columns=256 masked=1 sc_linear_decode"
BATCH = "generic batch_rows=32 sc_linear_batch"


def trials_at(rows: int, chosen: str, cold: bool, **milliseconds: float) -> tuple[Trial, ...]:
    names = {"decode": DECODE, "batch": BATCH}
    return tuple(
        Trial(
            *(rows, names.get(what, what), ms / 1e3, 1e-6, 946_000, what == chosen, cold),
            is_baseline=what == "dense",
        )
        for what, ms in milliseconds.items()
    )


def measured(weight: str, reason: str = "", chosen_by: str = "measured") -> NodeReport:
    """A linear measured at m = 1, 16 and, for its layout alone, 128."""
    node = dense(weight, reason, 1536, 576) if reason else packed(weight, 1536, 576)
    best = "dense" if reason else "decode"
    found = (
        *trials_at(1, best, True, decode=0.043, batch=0.2, dense=0.101),
        *trials_at(16, "dense", False, batch=0.4, dense=0.2),
        *trials_at(128, "", False, decode=2.0, dense=1.0),
    )
    problem = "n_m[2:4]/float bfloat16 1536x576"
    return replace(node, trials=found, problem=problem, chosen_by=chosen_by)


def test_choices_show_times_against_dense_once_for_all_layers() -> None:
    nodes = [measured(f"layers.{i}.up.weight") for i in range(8)]
    text = render(replace(report(nodes), read_bandwidth=27.1e9))
    assert text.endswith(
        """

chosen: measured; this machine reads 27.1 GB/s
  n_m[2:4] bf16 1536x576 m=1: strips decode 0.043 ms, 22 GB/s (81%), dense 0.101 ms, 2.3x
  n_m[2:4] bf16 1536x576 m=16: dense 0.2 ms, generic batch 0.4 ms, 0.5x"""
    )


def test_a_kernel_that_reads_faster_than_the_machine_says_why() -> None:
    text = render(replace(report([measured("up.weight")]), read_bandwidth=18e9))
    assert (
        "chosen: measured; this machine reads 18 GB/s or more: it was busy when that was measured, "
        "`sparsecompile machine --again` n_m"
    ) in " ".join(text.split())
    assert "22 GB/s (122%)" in text


def test_choices_of_what_stays_dense_come_before_it() -> None:
    doubtful = measured("up.weight", "dense is faster: ...", "from the record")
    trials = tuple(replace(t, noise=0.06e-3) for t in doubtful.trials)
    text = render(report([replace(doubtful, trials=trials)]))
    assert "GB/s" not in text
    line = (
        "n_m[2:4] bf16 1536x576 m=1: dense 0.101 ms, strips decode 0.043 ms, 2.3x within the noise"
    )
    assert text.index(f"chosen: from the record\n  {line}") < text.index("dense is faster: ...")
    # Beyond the noise, it can only be that the weight has another layout.
    line = line.replace("within the noise", "with another layout")
    assert line in render(report([doubtful]))


def test_choices_without_the_bandwidth_have_no_share() -> None:
    assert "strips decode 0.043 ms, 22 GB/s, dense 0.101 ms" in render(report([measured("up")]))


def test_choices_that_were_not_measured() -> None:
    nodes = [replace(packed(name), chosen_by="not measured (tune is off)") for name in "ab"]
    assert render(report(nodes)).endswith("\n\nchosen: not measured (tune is off)")


def test_recompiles_for_other_m_are_one_linear_with_all_trials() -> None:
    first, second = measured("up.weight"), measured("up.weight", chosen_by="from the record")
    assert first.kernel is not None
    other = replace(first.kernel, ranges=("any m: x of y",), schedule="lanes=32", source="other")
    extra = trials_at(64, "batch", False, batch=0.1, dense=0.3)
    second = replace(second, kernel=other, trials=(*second.trials, *extra))
    graphs = tuple(GraphReport("", "", (), (node,)) for node in (first, second))
    (node,) = Report("cpu", graphs).nodes
    assert node.trials == (*first.trials, *extra)
    assert node.chosen_by == "measured"
    # What only the graph for that m chose is listed as chosen, once.
    chosen = tuple(replace(t, chosen=t.candidate == BATCH) for t in first.trials[5:])
    graphs = (*graphs[:1], GraphReport("", "", (), (replace(second, trials=chosen),)))
    (node,) = Report("cpu", graphs).nodes
    assert node.trials == (*first.trials[:5], *chosen)
    graphs = tuple(GraphReport("", "", (), (node,)) for node in (first, second))
    stays = replace(dense("up.weight", "dense is faster: m=512"), shape=(1536, 576))
    graphs = (*graphs, GraphReport("", "", (), (stays,)))
    assert [node.packed for node in Report("cpu", graphs).nodes] == [True, False]


def test_trials_in_json() -> None:
    whole = replace(report([measured("up.weight")]), read_bandwidth=27.1e9)
    data = json.loads(whole.to_json())
    assert data["read_bandwidth"] == 27.1e9
    (node,) = data["nodes"]
    assert (node["problem"], node["chosen_by"]) == ("n_m[2:4]/float bfloat16 1536x576", "measured")
    assert node["trials"][0] == {
        "rows": 1,
        "candidate": DECODE,
        "seconds": pytest.approx(43e-6),
        "noise": 1e-6,
        "nbytes": 946_000,
        "chosen": True,
        "cold": True,
        "peak": None,
        "is_baseline": False,
        "bandwidth": pytest.approx(22e9),
        "share": pytest.approx(22 / 27.1),
    }
    assert {t["share"] is None for t in node["trials"] if not t["cold"]} == {True}
    unknown = json.loads(report([measured("up.weight")]).to_json())
    assert unknown["read_bandwidth"] is None
    assert unknown["nodes"][0]["trials"][0]["share"] is None


def test_text_shows_every_trial_when_asked() -> None:
    node = measured("up.weight")
    dense = next(t for t in node.trials if t.candidate == "dense" and t.rows == 16)
    trials = tuple(replace(t, peak=0.42) if t is dense else t for t in node.trials)
    # Layers of one problem share their lines.
    nodes = [replace(node, weight=name, trials=trials) for name in ("up.weight", "other.weight")]
    whole = replace(report(nodes), read_bandwidth=27.1e9)
    text = render(whole, trials=True)
    for m in (1, 16, 128):
        assert text.count(f"n_m[2:4] bf16 1536x576 m={m}\n") == 1
    share = "81% of the 27.1 GB/s that can be read"
    assert f"  strips decode: 0.043 ms, 0.946 MB, 22 GB/s, {share} <- chosen\n" in text
    assert "  dense: 0.2 ms, 0.946 MB, 4.7 GB/s, 42% of the peak rate <- chosen\n" in text
    assert "that can be read" not in render(whole)
    # Two candidates of one short name.
    other = replace(trials[0], candidate=DECODE.replace("256", "512"), chosen=False)
    twice = replace(node, trials=(*trials, other))
    assert f"{DECODE}: " in " ".join(render(report([twice]), trials=True).split())


def test_html_shows_every_trial_with_its_full_name(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    replace(report([measured("up.weight")]), read_bandwidth=27.1e9).to_html(path)
    text = Page(path.read_text(encoding="utf-8")).text
    share = "81% of the 27.1 GB/s that can be read"
    assert f"m=1{DECODE}: 0.043 ms, 0.946 MB, 22 GB/s, {share} <- chosen" in text
    assert text.count(DECODE) == 2
    assert text.count(BATCH) == 2


def test_layouts_of_one_weight_that_several_graphs_keep_are_all_counted() -> None:
    first = packed("up.weight")
    assert first.kernel is not None
    other = replace(first, graph=1, kernel=replace(first.kernel, layout="strips"))
    fused = replace(first, graph=1, epilogue=("relu",))
    merged = replace(first, graph=1, merged_with=("gate.weight",))
    for node, times in ((other, 2), (fused, 1), (merged, 2)):
        graphs = (GraphReport("", "", (), (first,)), GraphReport("", "", (), (node,)))
        report = Report("cpu", graphs)
        assert report.packed_bytes == times * first.packed_bytes
        assert report.dense_bytes == first.dense_bytes
