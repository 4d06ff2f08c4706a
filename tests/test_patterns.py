"""Name patterns mean weights by the names that reports give; one that means none is an error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from packing import MLP, Packing
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import sparsecompile as sc
from sparsecompile.report.rows import fold


class Block(nn.Module):
    """As in language models, with a graph break in the middle where that is wanted."""

    def __init__(self, breaks: bool = False) -> None:
        super().__init__()
        self.mlp = nn.ModuleDict({"up": nn.Linear(16, 32), "down": nn.Linear(32, 16)})
        self.breaks = breaks

    def forward(self, x: Tensor) -> Tensor:
        x = self.mlp["up"](x)
        if self.breaks:
            torch._dynamo.graph_break()
        return self.mlp["down"](F.relu(x))


class Model(nn.Module):
    """Layers and, in another graph where that is wanted, a linear at the top and a tied one."""

    def __init__(self, breaks: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(48, 16)
        self.layers = nn.ModuleList(Block() for _ in range(3))
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(16, 16)})
        self.lm_head = nn.Linear(16, 48, bias=False)
        self.lm_head.weight = self.tokens.weight
        self.conv = nn.Conv1d(16, 16, 1)
        self.breaks = breaks
        self.requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for layer in self.layers:
            x = x + layer(x)
        if self.breaks:
            torch._dynamo.graph_break()
        return self.lm_head(F.relu(self.mlp["fc1"](x)))


IDS = torch.arange(5)[None]
UP = {f"layers.{i}.mlp.up.weight" for i in range(3)}
DOWN = {f"layers.{i}.mlp.down.weight" for i in range(3)}
FC1, HEAD = {"mlp.fc1.weight"}, {"tokens.weight"}

PATTERNS: dict[str, set[str]] = {
    "lm_head": HEAD,
    "lm_head.weight": HEAD,
    "tokens": HEAD,
    "lm_*": HEAD,
    "*.lm_head": HEAD,
    "*.mlp.*": UP | DOWN | FC1,
    "*mlp.*": UP | DOWN | FC1,
    "mlp.fc1": FC1,
    "layers.*": UP | DOWN,
    "*.up": UP,
    "layers.1.mlp.up": {"layers.1.mlp.up.weight"},
    "layers.{0-2}.mlp.up": UP,
    "layers.{0,2}.mlp.*": (UP | DOWN) - {f"layers.1.mlp.{n}.weight" for n in ("up", "down")},
    "layers.[01].mlp.up": UP - {"layers.2.mlp.up.weight"},
    "*": UP | DOWN | FC1 | HEAD,
}


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_means_weights_by_the_names_of_modules_and_parameters(
    pattern: str, breaks: bool
) -> None:
    model = Model(breaks)
    report = sc.explain(model, IDS, prune={pattern: "2:4"}, quantize={pattern: "int8-weight-only"})
    assert report.graphs > 1 or not breaks
    assert {node.weight for node in report.nodes} == set().union(*PATTERNS.values())
    assert {node.weight for node in report.nodes if node.packed} == PATTERNS[pattern]


@pytest.mark.parametrize("breaks", [False, True])
def test_what_a_report_calls_a_row_is_a_pattern_for_it(breaks: bool) -> None:
    model = Model(breaks)
    for row in fold(sc.explain(model, IDS).nodes, lambda node: node.shape):
        report = sc.explain(model, IDS, prune={str(row): "2:4"})
        packed = {node.weight for node in report.nodes if node.packed}
        assert packed == {node.weight for node in row.nodes}


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p != "tokens"])
def test_compress_takes_the_same_patterns(pattern: str) -> None:
    model = sc.compress(Model(), prune={pattern: "2:4"})
    kept = {n for n, p in model.named_parameters() if isinstance(p, sc.PackedTensor)}
    assert kept == PATTERNS[pattern]


def test_names_of_modules_mean_weights_that_are_computed_too() -> None:
    model = MLP().requires_grad_(False)
    prune.l1_unstructured(model.up, "weight", 0.5)
    report = sc.explain(model, torch.randn(2, 32), quantize={"up": "int4"})
    assert [node.lossy for node in report.nodes] == ["quantize int4[group=128]", ""]


def test_weights_that_are_made_at_the_first_call_may_be_meant() -> None:
    model = nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.LazyLinear(32))
    report = sc.explain(model, torch.randn(2, 32), prune={"2": "2:4"})
    assert [node.packed for node in report.nodes] == [False, True]


UNKNOWN = {
    "lm_haed*": "; did you mean 'lm_head'",
    "lm_head.wieght": "; did you mean 'lm_head'",
    "*.mpl.*": "; did you mean 'layers.0.mlp.up'",
    "layers.{3-4}.mlp.up": "; did you mean 'layers.",
    "layer.0.mlp.up": "; did you mean 'layers.0.mlp.up'",
    "nothing_like_it": "; known: 'tokens', 'layers.0.mlp.up', 'layers.0.mlp.down' and 6 more",
    "": "; known: ",
    "conv": "; known: ",
}


def compiled(option: str, pattern: str, breaks: bool) -> None:
    options = {option: {pattern: "2:4" if option == "prune" else "int4"}}
    torch.compile(Model(breaks), backend="sparse", options=options)(IDS)


def by_method(option: str, pattern: str, breaks: bool) -> None:
    model = Model(breaks)
    options = {option: {pattern: "2:4" if option == "prune" else "int4"}}
    model.compile(backend="sparse", options=options)
    model(IDS)


def explained(option: str, pattern: str, breaks: bool) -> None:
    sc.explain(Model(breaks), IDS, **{option: {pattern: "2:4" if option == "prune" else "int4"}})


def compressed(option: str, pattern: str, breaks: bool) -> None:
    sc.compress(Model(breaks), **{option: {pattern: "2:4" if option == "prune" else "int4"}})


def as_a_function(option: str, pattern: str, breaks: bool) -> None:
    model, recipe = Model(breaks), "2:4" if option == "prune" else "int4"
    sc.explain(lambda ids: model(ids), IDS, **{option: {pattern: recipe}})


def of_a_pass(option: str, pattern: str, breaks: bool) -> None:
    recipe = {pattern: "2:4" if option == "prune" else "int4"}
    sc.explain(Model(breaks), IDS, passes={option: {"recipe": recipe}})


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("option", ["prune", "quantize"])
@pytest.mark.parametrize(
    "use", [compiled, by_method, explained, compressed, as_a_function, of_a_pass]
)
@torch.no_grad()
def test_a_pattern_that_means_nothing_is_an_error(
    use: Callable[[str, str, bool], None], option: str, breaks: bool
) -> None:
    start = (
        f"pattern 'layers.1.mlp.pu' of option '{option}' matches no weight matrix; did you mean '"
    )
    with pytest.raises(sc.OptionError, match=start) as raised:
        use(option, "layers.1.mlp.pu", breaks)
    assert raised.value.option == option


@pytest.mark.parametrize("pattern", UNKNOWN)
def test_the_error_says_which_names_are_near(pattern: str) -> None:
    with pytest.raises(sc.OptionError) as raised:
        sc.explain(Model(), IDS, prune={"*": "2:4", pattern: "2:4"})
    assert f"pattern {pattern!r} of option 'prune' matches no weight matrix" in str(raised.value)
    assert UNKNOWN[pattern] in str(raised.value)


@pytest.mark.parametrize("breaks", [False, True])
def test_a_pattern_for_a_later_graph_is_no_error_in_the_first(breaks: bool) -> None:
    model, backend = Model(breaks), Packing(prune={"layers.2.mlp.down": "2:4", "lm_head": "2:4"})
    with torch.no_grad():
        torch.compile(model, backend=backend)(IDS)
    assert set(backend.packed) == {"layers.2.mlp.down.weight", "tokens.weight"}
    assert not backend.compiler.report.unmatched


class Outer(nn.Module):
    """A module whose part has a graph break."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = Block(True), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x))


def test_graphs_of_a_part_of_the_model_have_the_model_s_names() -> None:
    model, backend = Outer().requires_grad_(False), Packing(prune="2:4")
    with torch.no_grad():
        torch.compile(model, backend=backend)(torch.randn(2, 16))
    names = {"inner.mlp.up.weight", "inner.mlp.down.weight", "last.weight"}
    assert set(backend.packed) == names
    assert backend.compiler.report.graphs > 1


def test_a_model_s_forward_that_is_compiled_belongs_to_the_model() -> None:
    model, backend = Model(True), Packing(prune={"lm_head": "2:4"})
    model.forward = torch.compile(model.forward, backend=backend)  # type: ignore[method-assign]
    with torch.no_grad():
        model(IDS)
    assert backend.packed == ["tokens.weight"]
    assert len({node.weight for node in backend.compiler.report.nodes}) == 8


def test_a_function_of_a_module_does_not_belong_to_it() -> None:
    """It may have others too."""
    model, other = MLP().requires_grad_(False), nn.Linear(32, 32).requires_grad_(False)
    backend = Packing(prune={"*weight": "2:4", "lm_haed": "2:4"})
    calls = (lambda module, x: other(module(x)), partial(lambda y, module, x: module(x), 1))
    with torch.no_grad():
        for call in calls:
            torch.compile(call, backend=backend)(model, torch.randn(2, 32))
    assert "lm_haed" in backend.compiler.report.unmatched["prune"]


def test_a_method_that_is_compiled_in_its_class_belongs_to_the_model() -> None:
    backend = Packing(prune={"lm_head": "2:4"})

    class Compiled(Model):
        @torch.compile(backend=backend)
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids)

    with torch.no_grad():
        Compiled()(IDS)
        assert backend.packed == ["tokens.weight"]
        with pytest.raises(
            sc.OptionError, match="'lm_haed' of option 'prune' matches no weight matrix;"
        ):
            torch.compile(Compiled(), backend="sparse", options={"prune": {"lm_haed": "2:4"}})(IDS)


def test_of_a_function_patterns_without_a_weight_so_far_are_reported(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    model, backend = MLP().requires_grad_(False), Packing(prune={"*.up": "2:4", "*.dwon": "2:4"})

    def function(x: Tensor) -> Tensor:
        x = F.gelu(model.up(x))
        torch._dynamo.graph_break()
        return model.down(x)

    with torch.no_grad(), caplog.at_level(logging.WARNING, "sparsecompile"):
        torch.compile(function, backend=backend)(torch.randn(2, 32))
    report = backend.compiler.report
    assert list(report.unmatched) == ["prune"]
    message = "pattern '*.dwon' of option 'prune' matches no weight matrix"
    assert report.unmatched["prune"] == f"{message}; did you mean 'down'?"
    assert report.unmatched["prune"] in " ".join(str(report).split())
    report.to_html(tmp_path / "report.html")
    assert message.replace("'", "&#x27;") in (tmp_path / "report.html").read_text()
    (record,) = [record for record in caplog.records if record.name == "sparsecompile"]
    assert record.message == f"{message}; known: 'up', of those compiled so far"


def test_of_a_function_a_pattern_is_matched_by_any_of_its_graphs() -> None:
    model = MLP().requires_grad_(False)

    def function(x: Tensor) -> Tensor:
        x = F.gelu(model.up(x))
        torch._dynamo.graph_break()
        return model.down(x)

    report = sc.explain(function, torch.randn(2, 32), prune={"*down": "2:4"})
    assert not report.unmatched
