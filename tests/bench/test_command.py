"""`sparsecompile bench`: what its commands write, at sizes that say nothing about speed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import sparsecompile
from sparsecompile.bench.cases import LinearCase
from sparsecompile.bench.environment import package_commit
from sparsecompile.bench.linear import LinearRow, bench_linear, cold_bytes
from sparsecompile.bench.model import ModelRow
from sparsecompile.bench.overhead import OverheadRow
from sparsecompile.codegen.cpp import machine
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.commands.app import app
from sparsecompile.errors import OptionError, SparseCompileError

MACHINE = Machine("a CPU", 2, 2e10, 1e10, 1 << 20, 1 << 25, 1e11, 2e11, 4e11, "fma", "dp", "vnni")
MODEL = """\
import torch
from sparsecompile import NM


def make():
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    with torch.no_grad():
        model[0].weight *= NM(2, 4).prune(model[0].weight)
    return model.eval(), (torch.randn(2, 64),)
"""
DENSE = ["linear", "onednn", "inductor"]
LINEAR = ("linear", "--shape", "64x32", "--rotate", "0", "--rounds", "3")
WRITE = ("--json", "out.json", "--csv", "out.csv")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder as current directory, on a machine that needs no measuring."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "measure_machine", lambda threads: MACHINE)
    (tmp_path / "demo.py").write_text(MODEL)


def bench(*words: str) -> Result:
    return CliRunner().invoke(app, ("bench", *words))


def written(command: str, kind: type[Any], result: Result) -> list[dict[str, Any]]:
    """The rows in `out.json`, which `out.csv` has to repeat."""
    assert result.exit_code == 0, result.stderr
    facts = json.loads(Path("out.json").read_text())
    assert {name: facts[name] for name in ("schema", "command")} == {
        "schema": 1,
        "command": command,
    }
    assert Machine(**facts["machine"]) == MACHINE
    rows: list[dict[str, Any]] = facts["rows"]
    names = [field.name for field in fields(kind)]
    with Path("out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert all(list(row) == names for row in (*rows, *lines))
    texts = [{name: str(value) for name, value in row.items()} for row in rows]
    assert texts == lines
    for row in rows:
        assert row["machine"] == "a CPU"
        assert row["threads"] == torch.get_num_threads()
        assert row["torch"] == torch.__version__
        assert row["sparsecompile"] == sparsecompile.__version__
        assert row["commit"] == package_commit()
    return rows


def test_linear() -> None:
    words = ("--m", "1,16", "--format", "2:4,dense", "--dtype", "float32")
    result = bench(*LINEAR, *words, *WRITE)
    rows = written("linear", LinearRow, result)
    cases = list(dict.fromkeys(row["case"] for row in rows))
    assert cases == [f"64x32 m={m} float32 {f}" for f in ("2:4", "dense") for m in (1, 16)]
    assert result.stderr.splitlines()[-1] == cases[-1]
    for case in cases:
        members = {row["candidate"]: row for row in rows if row["case"] == case}
        assert [name for name in DENSE if name in members] == list(members)[:-1]
        assert members["linear"]["speedup"] == 1
        for row in members.values():
            assert row["ms"] > 0
            assert row["copies"] == 1
            assert 0 <= row["error"] < 1e-5
            assert row["gb_per_s"] == pytest.approx(row["weight_bytes"] / row["ms"] / 1e6)
            assert row["bandwidth_share"] == pytest.approx(row["gb_per_s"] / 20)
        assert max(members[n]["speedup_best_dense"] for n in DENSE if n in members) == 1
        sparse = members["sparse"]
        if case.endswith("2:4"):
            assert sparse["kernel"].startswith("n_m[2:4]/float ")
            assert sparse["weight_bytes"] < members["linear"]["weight_bytes"]
        else:
            assert sparse["kernel"].startswith("dense: ")
        assert sparse["kernel"].split()[0] in result.stdout


def test_copies_of_a_layer_share_one_graph() -> None:
    case = LinearCase(2, 64, 32, "bfloat16", "unstructured(0.8)")
    rows = bench_linear([case], MACHINE, rounds=1, rotate=5 * case.dense_bytes - 1)
    assert {row.copies for row in rows} == {5}
    assert {row.samples for row in rows} == {1}
    (warm, *_) = bench_linear([LinearCase(9, 8, 8, "float32", "2:4")], MACHINE, rounds=1)
    assert warm.copies == 1


def test_cold_is_more_than_the_caches_hold() -> None:
    assert cold_bytes(MACHINE) > 256e6
    large = Machine(**{**vars(MACHINE), "llc_bytes": 10**9})
    assert cold_bytes(large) > 3e9


def test_several_sparse_candidates() -> None:
    case = LinearCase(1, 64, 32, "float32", "2:4")
    options: list[dict[str, Any]] = [{}, {"prune": "1:4"}]
    rows = bench_linear([case], MACHINE, options=options, rounds=1, rotate=0)
    assert [row.candidate for row in rows][-2:] == ["sparse", "sparse 1:4"]
    # What an option changes is seen in the error.
    assert rows[-2].error < 1e-5 < rows[-1].error


def test_an_option_that_cannot_be_used_is_found_first() -> None:
    with pytest.raises(OptionError, match="unknown option 'prun'"):
        bench_linear([], MACHINE, options=[{"prun": "2:4"}])


def test_model() -> None:
    result = bench("model", "demo.py:make", "--rounds", "3", *WRITE)
    rows = written("model", ModelRow, result)
    eager, inductor, sparse = rows
    assert [row["candidate"] for row in rows] == ["eager", "inductor", "sparse"]
    assert (eager["speedup"], eager["compile_s"], eager["difference"]) == (1, 0, 0)
    assert inductor["compile_s"] > 0
    assert sparse["compile_s"] > 0
    assert sparse["difference"] < 1e-5
    assert sparse["packed"] == "1 of 2"
    assert sparse["weight_bytes"] < eager["weight_bytes"] == inductor["weight_bytes"]
    assert "1 of 2" in result.stdout


def test_model_with_options() -> None:
    result = bench("model", "demo.py:make", "--prune", "1:8", "--rounds", "1", *WRITE)
    *_, sparse = written("model", ModelRow, result)
    assert sparse["options"] == "prune=1:8"
    assert sparse["packed"] == "2 of 2"
    assert sparse["difference"] > 1e-3


def test_overhead() -> None:
    words = ("--chain", "3", "--weights", "4", "--rounds", "3")
    rows = written("overhead", OverheadRow, bench("overhead", *words, *WRITE))
    assert [row["candidate"] for row in rows] == ["inductor", "sparse"] * 3
    assert [row["what"].partition(",")[0] for row in rows[:2]] == ["one more call of 3"] * 2
    assert all("freshness of 4 weights" in row["what"] for row in rows[2:])
    assert rows[0]["ratio"] == rows[2]["ratio"] == 1
    packed = {row["kernel"] for row in rows} - {""}
    assert len(packed) == 1
    assert packed.pop().startswith("n_m[2:4]/float ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "3:2"), "error: cannot prune to '3:2': 3:2 is not an n:m"),
        (("--format", "sparse"), "error: cannot prune to 'sparse'; write '2:4'"),
        (("--shape", "64"), "error: --shape '64' is no shape"),
        (("--m", "x"), "error: --m 'x' is no number of rows"),
        (("--dtype", "int4"), "error: --dtype 'int4' is none of float32"),
        (("--json", "no/out.json"), "error: cannot write no/out.json: there is no folder no"),
        (("--csv", "."), "error: cannot write .: it is a folder"),
    ],
)
def test_errors_are_said_before_anything_is_measured(words: tuple[str, str], message: str) -> None:
    result = bench("linear", *words)
    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert isinstance(result.exception, SystemExit)


def test_a_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = bench("linear", "--plot", "out.png")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: --plot needs matplotlib, which is not installed: pip install matplotlib\n"
    )


def row(m: int, candidate: str) -> LinearRow:
    return LinearRow(
        "a CPU",
        2,
        "2",
        "1",
        "",
        case="",
        shape="64x32",
        m=m,
        dtype="float32",
        format="2:4",
        candidate=candidate,
        ms=1.0,
        mad=0.1,
        samples=3,
        dropped=0,
        copies=1,
        speedup=1.5,
        speedup_best_dense=1.2,
        speedup_compiled_dense=1.3,
        error=0.0,
        weight_bytes=100,
        gb_per_s=3.0,
        bandwidth_share=0.15,
        kernel="",
    )


def test_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from sparsecompile.bench.plot import plot_linear

    rows = [row(m, name) for m in (1, 16) for name in ("linear", "sparse", "sparse int4")]
    plot_linear(rows, MACHINE, tmp_path / "out.svg")
    assert "<svg" in (tmp_path / "out.svg").read_text()
    with pytest.raises(SparseCompileError, match=r"cannot write .*out\.nothing: "):
        plot_linear(rows, MACHINE, tmp_path / "out.nothing")


def test_a_model_that_is_none() -> None:
    result = bench("model", "demo.py")
    assert result.exit_code == 2
    assert "'demo.py' is not MODULE:FACTORY" in result.stderr


def test_the_commit_is_that_of_the_packages_own_repository(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(("git", *identity, *words), cwd=tmp_path, check=True, capture_output=True)

    commit: Callable[[Path], str] = package_commit.__wrapped__
    assert commit(tmp_path) == ""
    git("init")
    (tmp_path / "__init__.py").write_text("")
    assert commit(tmp_path) == ""
    git("add", "__init__.py")
    git("commit", "-m", "one")
    first = commit(tmp_path)
    assert len(first) == 12
    (tmp_path / "__init__.py").write_text("1")
    assert commit(tmp_path) == f"{first}-dirty"


def test_git_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert package_commit.__wrapped__(tmp_path) == ""


def test_help_measures_and_imports_nothing_more() -> None:
    program = (
        "import sys; from typer.testing import CliRunner\n"
        "from sparsecompile.commands.app import app\n"
        "for words in (['--help'], ['bench', '--help'], ['bench', 'linear', '--help']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0\n"
        "known = ('sparsecompile.bench', 'matplotlib', 'triton')\n"
        "print(*sorted(m for m in sys.modules if m.startswith(known)))"
    )
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
    here = Path(sparsecompile.__file__).parent / "bench"
    rooms = [command.parent.name for command in here.glob("*/command.py")]
    names = ["", ".checkout", ".command"]
    names += [f".{room}{name}" for room in rooms for name in ("", ".command")]
    assert done.stdout.split() == sorted(f"sparsecompile.bench{n}" for n in names), done.stderr
