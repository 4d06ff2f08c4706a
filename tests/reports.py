"""Reports made by hand, and their pages."""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser

from sparsecompile.graph import Rewrite
from sparsecompile.report import GraphReport, KernelChoice, NodeReport, Report
from sparsecompile.survey import Finding


def kernel(template: str = "generic") -> KernelChoice:
    return KernelChoice("linear n_m[2:4]/float bfloat16", template, "lanes=64", "linear_n_m")


def dense(weight: str, reason: str, n: int = 8, k: int = 8) -> NodeReport:
    nbytes = 2 * n * k
    return NodeReport(
        graph=0,
        node="linear",
        weight=weight,
        shape=(n, k),
        dtype="bfloat16",
        zeros=0.0,
        findings=(
            Finding("bitmap/float", None, "the weight holds no zeros"),
            Finding("csr/float", None, "the weight holds no zeros"),
        ),
        dense_bytes=nbytes,
        packed_bytes=nbytes,
        reason=reason,
    )


def packed(
    weight: str,
    n: int = 64,
    k: int = 64,
    epilogue: tuple[str, ...] = (),
    merged: tuple[str, ...] = (),
    lossy: str = "",
    zeros: float = 0.5,
) -> NodeReport:
    nbytes = 2 * n * k
    return NodeReport(
        graph=0,
        node="linear",
        weight=weight,
        shape=(n, k),
        dtype="bfloat16",
        zeros=zeros,
        findings=(
            Finding("csr/float", None, f"takes {2 * nbytes} bytes, dense {nbytes}"),
            Finding("n_m[2:4]/float", nbytes * 9 // 16),
        ),
        format="n_m[2:4]/float",
        kernel=kernel(),
        epilogue=epilogue,
        merged_with=merged,
        lossy=lossy,
        dense_bytes=nbytes,
        packed_bytes=nbytes * 9 // 16,
    )


def report(nodes: Iterable[NodeReport], rewrites: tuple[Rewrite, ...] = ()) -> Report:
    graph = GraphReport("before", "after", rewrites, tuple(nodes))
    return Report("cpu x86_64 avx512", (graph,), {"linear_n_m": "int main() {}"})


class Page(HTMLParser):
    """Tags, links and visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [name for name, _ in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data
