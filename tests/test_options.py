"""Options, errors and what is written for people to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from packing import MLP

import sparsecompile as sc


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prun": "2:4"}, sc.OptionError, "unknown option 'prun'; did you mean 'prune'"),
        ({"formats": ["bitmask"]}, sc.RegistrationError, "did you mean 'bitmap'"),
        ({"formats": ["n_m[4:2]"]}, sc.RegistrationError, "4:2 is not an n:m"),
        ({"formats": "bitmap"}, sc.OptionError, "'formats' must be a list of format names"),
        ({"prune": "most"}, sc.OptionError, "cannot prune to 'most'"),
        ({"passes": {"fuse": {}}}, sc.OptionError, "no pass is called 'fuse'"),
        ({"passes": {"merge_linears": {"many": 1}}}, sc.OptionError, "has no option many"),
        (
            {"passes": {"without": "merge_linears"}},
            sc.OptionError,
            "must be a list of pass names",
        ),
        ({"passes": {"without": 3}}, sc.OptionError, "'without' in .* must be a list .*, not 3"),
        ({"passes": {"without": [3]}}, sc.OptionError, r"must be a list of pass .*, not \[3\]"),
        ({"passes": {"without": ["fuse"]}}, sc.OptionError, "no pass is called 'fuse'; known: "),
        (
            {"passes": {"merge_linears": 3}},
            sc.OptionError,
            "give 'merge_linears' a mapping, .*3",
        ),
        ({"passes": {"merge_linears": {3: 1}}}, sc.OptionError, "has no option 3; known: most"),
        (
            {"passes": {"merge_linears": {"most": -1}}},
            sc.OptionError,
            "whole number from 2, not -1",
        ),
        ({"passes": {"merge_linears": {"most": "x"}}}, sc.OptionError, "from 2, not 'x'; options="),
        (
            {"passes": {"prune": {"recipe": 3}}},
            sc.OptionError,
            "'prune' must be a recipe .*not 3",
        ),
        ({"prune": 3}, sc.OptionError, "'prune' must be a recipe or a mapping from patterns of"),
        ({"prune": {"*": 3}}, sc.OptionError, r"'prune' must be a recipe .*, not {'\*': 3}"),
        ({"prune": {3: "2:4"}}, sc.OptionError, "'prune' must be a recipe .*, not {3: '2:4'}"),
        ({"quantize": {"*": 3}}, sc.OptionError, "'quantize' must be a recipe or a mapping from"),
        (
            {"inductor": {"max-autotun": 1}},
            sc.OptionError,
            "; did you mean 'max_autotune'",
        ),
        ({"inductor": {"foo": 1}}, sc.OptionError, "no option 'foo'; .*list_options"),
        ({"inductor": {3: 1}}, sc.OptionError, "Inductor has no option 3; torch._inductor.list_op"),
        ({"tune": "slow"}, sc.OptionError, "'tune' must be one of off, cached, fast, full, not"),
        ({"tune": True}, sc.OptionError, "'tune' must be one of off, cached, fast, full, not True"),
        ({"strict": 1}, sc.OptionError, "'strict' must be True or False"),
        ({"target": "tpu"}, sc.OptionError, "no target 'tpu' on this machine"),
        ({"inductor": {"freezing": True}}, sc.OptionError, "never notices that they change"),
    ],
)
def test_bad_options_reach_the_user_as_what_they_are(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    fast = torch.compile(MLP(), backend="sparse", options=options)
    with pytest.raises(error, match=message) as raised:
        fast(torch.randn(2, 32))
    assert isinstance(raised.value, sc.SparseCompileError)


def test_wrong_options_are_found_when_the_compiler_is_made() -> None:
    with pytest.raises(sc.OptionError, match="Inductor has no option 'foo'"):
        sc.Compiler(inductor={"foo": 1})
    assert sc.Compiler(inductor={"force_disable_caches": True, "cpp.simdlen": 8})


def test_options_of_torch_compile_add_to_those_of_the_compiler() -> None:
    compiler = sc.Compiler(formats=["bitmap"])
    with pytest.raises(sc.OptionError, match="cannot prune"):
        torch.compile(MLP(), backend=compiler, options={"prune": "x"})(torch.randn(2, 32))


def test_a_pass_that_raises_reaches_the_user() -> None:
    class Broken(sc.Pass):
        name, phase = "broken", sc.Phase.FINISH

        def run(self, edit: sc.Edit) -> None:
            raise KeyError("lost")

    compiler = sc.Compiler()
    compiler.register(Broken())
    with pytest.raises(
        sc.PassError, match=r"pass 'broken' failed.*KeyError: 'lost' .*test_options"
    ):
        torch.compile(MLP(), backend=compiler)(torch.randn(2, 32))


def test_dump_writes_every_step(tmp_path: Path) -> None:
    compiler = sc.Compiler(dump=str(tmp_path / "dump"))
    compiler.explain(MLP(), torch.randn(2, 32))
    folder = tmp_path / "dump"
    steps = sorted(p.name for p in (folder / "graph_000").iterdir())
    assert steps[0] == "00_captured"
    assert steps[-1].endswith("_lowered")
    assert [s.partition("_")[2] for s in steps[1:-1]] == [p.name for p in compiler.passes]
    assert "packed_linear" in (folder / "graph_000" / steps[-2] / "graph.py").read_text()
    # Of both linears, and of the region that they are.
    assert len(list((folder / "sources").glob("*.cpp"))) == 3
    assert json.loads((folder / "report.json").read_text())["graphs"] == 1
    assert (folder / "report.txt").read_text()


def test_dump_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(sc.CacheError, match="cannot dump to"):
        sc.explain(MLP(), torch.randn(2, 32), dump=str(tmp_path / "file"), strict=True)


def test_explaining_often() -> None:
    model = MLP()
    for _ in range(12):
        nodes = sc.explain(model, torch.randn(2, 32)).nodes
        assert [node.packed for node in nodes] == [True, True]
