"""The report as a page of HTML."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from reports import Page, any_nodes, dense, packed, report, smollm2, squeeze

from sparsecompile.detection.survey import Finding
from sparsecompile.graph.considered import Rewrite
from sparsecompile.report.facts import GraphReport, KernelChoice, NodeReport
from sparsecompile.report.model import Report


def test_html_is_one_page_that_loads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    smollm2().to_html(str(path))
    page = Page(path.read_text(encoding="utf-8"))
    assert page.links == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "model.layers.{0-29}.mlp.up_proj" in page.text
    assert "210 of 211 linears packed" in page.text
    assert "int main() {}" in page.text


def test_html_escapes_everything(tmp_path: Path) -> None:
    evil = "<script>alert('1') && \"2\"</script>"
    node = packed(f"{evil}.weight", merged=(evil,), lossy=evil, epilogue=(evil,))
    choice = KernelChoice(evil, evil, evil, evil)
    nodes = (
        NodeReport(**{**vars(node), "kernel": choice, "format": evil, "dtype": evil}),
        NodeReport(**{**vars(dense("b", evil)), "findings": (Finding(evil, None, evil),)}),
    )
    graph = GraphReport(evil, evil, (Rewrite(evil, evil, evil),), nodes)
    path = tmp_path / "report.html"
    Report(evil, (graph,), {evil: evil}).to_html(str(path))
    page = Page(path.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.text.count(evil) >= 18


@given(any_nodes)
def test_html_says_every_reason(
    tmp_path_factory: pytest.TempPathFactory, nodes: list[NodeReport]
) -> None:
    path = tmp_path_factory.mktemp("html") / "report.html"
    report(nodes).to_html(str(path))
    text = squeeze(Page(path.read_text(encoding="utf-8")).text)
    assert all(squeeze(node.reason) in text for node in nodes)


def test_html_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("before")

    def full(self: Path, target: Path) -> Path:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        smollm2().to_html(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "before"
