"""Reports made by hand, and their pages."""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser

from hypothesis import strategies as st

from sparsecompile.detection.survey import Finding
from sparsecompile.graph.considered import Rewrite
from sparsecompile.kernels.trial import Trial
from sparsecompile.report.facts import GraphReport, KernelChoice, NodeReport
from sparsecompile.report.model import Report


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


SMOLLM2 = {
    "self_attn.q_proj": (576, 576, ()),
    "self_attn.k_proj": (192, 576, ()),
    "self_attn.v_proj": (192, 576, ()),
    "self_attn.o_proj": (576, 576, ()),
    "mlp.gate_proj": (1536, 576, ("silu",)),
    "mlp.up_proj": (1536, 576, ("mul",)),
    "mlp.down_proj": (576, 1536, ()),
}


def smollm2() -> Report:
    nodes = [
        packed(f"model.layers.{i}.{name}.weight", n, k, epilogue)
        for i in range(30)
        for name, (n, k, epilogue) in SMOLLM2.items()
    ]
    return report([*nodes, dense("lm_head.weight", "the weight holds no zeros", 49152, 576)])


def squeeze(text: str) -> str:
    """Without whitespace, so that it does not matter where lines were broken."""
    return "".join(text.split())


printable = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=250)
part = st.one_of(
    st.integers(0, 12).map(str),
    st.sampled_from(["layers", "mlp", "fc1", "fc2", "up_proj", "weight", "007", "x" * 70]),
    st.text(max_size=30),
)
weight_names = st.lists(part, min_size=1, max_size=6).map(".".join)
sizes = st.integers(0, 2**62)


trials = st.builds(
    Trial,
    st.integers(1, 512),
    st.sampled_from(["dense", "strips masked=1 sc_linear_decode"]) | printable,
    st.floats(1e-9, 1e3),
    st.floats(0, 1),
    sizes,
    st.booleans(),
    st.booleans(),
    st.none() | st.floats(0, 2),
)


@st.composite
def any_node(draw: st.DrawFn) -> NodeReport:
    is_packed = draw(st.booleans())
    formats = st.one_of(st.sampled_from(["n_m[2:4]/float", "csr/int8[group=128]"]), printable)
    finding = st.builds(Finding, formats, st.none() | sizes, printable)
    return NodeReport(
        graph=0,
        node=draw(printable),
        weight=draw(weight_names),
        shape=draw(st.none() | st.tuples(sizes, sizes)),
        dtype=draw(st.sampled_from(["bfloat16", "float32", "x" * 40])),
        zeros=draw(st.none() | st.floats(0, 1)),
        findings=tuple(draw(st.lists(finding, max_size=3))),
        format=draw(formats) if is_packed else None,
        kernel=kernel(draw(printable)) if is_packed else None,
        epilogue=draw(st.sampled_from([(), ("silu",), ("gelu_tanh", "add")])),
        merged_with=tuple(draw(st.lists(weight_names, max_size=2))),
        lossy=draw(st.just("") | printable),
        dense_bytes=draw(sizes),
        packed_bytes=draw(sizes),
        reason="" if is_packed else draw(printable.filter(lambda text: "." not in text)),
        trials=tuple(draw(st.lists(trials, max_size=4))),
        problem=draw(st.just("n_m[2:4]/float bfloat16 64x64") | printable),
        chosen_by=draw(st.sampled_from(["", "measured"]) | printable),
    )


any_nodes = st.lists(any_node(), max_size=8)
