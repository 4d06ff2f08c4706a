"""`sparsecompile tune`, and what the cache command makes of the record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.measurements import TuningRecord, tuning_key
from sparsecompile.commands.app import app

FACTS = {
    "spec": "linear n_m[2:4]/float bfloat16",
    "n": 1536,
    "k": 576,
    "density": 0.5,
    "m": 1,
    "target": "cpu x86_64 avx512",
    "threads": 2,
    "torch": "2.11",
}
STRIPS = "strips batch_columns=256 masked=1 sc_linear_decode"
TIMINGS = {
    "dense": Timing(101e-6, 1e-6),
    STRIPS: Timing(43e-6, 1e-6),
    STRIPS.replace("256", "128"): Timing(45e-6, 1e-6),
    "generic batch_rows=32 sc_linear_batch": Timing(202e-6, 1e-6),
}


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.fixture
def record(cache_folder: Path) -> TuningRecord:
    """Two m of one problem, and one of another machine."""
    record = TuningRecord()
    for m in (128, 1):
        facts = {**FACTS, "m": m}
        record.add(tuning_key(facts), facts, TIMINGS)
    record.add("elsewhere", FACTS, TIMINGS)
    return record


def test_show_is_a_table_against_dense(record: TuningRecord) -> None:
    result = run("tune", "show")
    assert result.exit_code == 0, result.stderr
    assert lines(result.stdout) == [
        "problem m candidate ms against dense",
        "n_m[2:4]/float bfloat16 1536x576, density 0.5, threads 2 1 strips decode 0.043 2.35x",
        "dense 0.101",
        "generic batch 0.202 0.50x",
        "128 strips decode 0.043 2.35x",
        "dense 0.101",
        "generic batch 0.202 0.50x",
        "and 1 of other versions or machines, which --json shows",
    ]
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_formats_are_shown_with_their_parameters(cache_folder: Path) -> None:
    facts = {**FACTS, "spec": "linear dense/int4[group=32,scales=float16] bfloat16"}
    TuningRecord().add(tuning_key(facts), facts, TIMINGS)
    assert "dense/int4[group=32,scales=float16] bfloat16" in lines(run("tune", "show").stdout)[1]


def test_show_merges_lines_of_one_key(record: TuningRecord) -> None:
    record.add(tuning_key(FACTS), FACTS, {"dense": Timing(0.5, 0.0)})
    shown = lines(run("tune", "show").stdout)
    assert "dense 500" in shown
    assert len(shown) == 8


def test_show_without_dense_or_facts(cache_folder: Path) -> None:
    TuningRecord().add(tuning_key({}), {}, {"gone": Timing(1.0, 0.0), "": Timing(2.0, 0.0)})
    result = run("tune", "show")
    assert result.exit_code == 0, result.exception
    assert lines(result.stdout)[1] == "? ?x?, density ?, threads ? gone 1000"


def test_show_names_what_others_are_compared_with(cache_folder: Path) -> None:
    facts = {**FACTS, "spec": "attention bfloat16 d=64", "baseline": "torch"}
    timings = {"dense": Timing(4e-3, 0.0), "flash region_work=1 sc_attention": Timing(1e-3, 0.0)}
    TuningRecord().add(tuning_key(facts), facts, timings)
    assert lines(run("tune", "show").stdout)[1:] == [
        "attention bfloat16 d=64 1536x576, density 0.5, threads 2 1 flash sc_attention 1 4.00x",
        "torch 4",
    ]


def test_show_names_the_gpu(cache_folder: Path) -> None:
    facts = {**FACTS, "target": "cuda sm_90", "gpu": "NVIDIA H100", "triton": "3.9.0"}
    facts.pop("threads")
    timings = {"dense": Timing(3e-6, 0.0), "cusparselt alg_id=2": Timing(2e-6, 0.0)}
    timings |= {"cusparselt alg_id=0": Timing(4e-6, 0.0), "tiles stages=3 row": Timing(1e-6, 0.0)}
    TuningRecord().add(tuning_key(facts), facts, timings)
    assert lines(run("tune", "show").stdout)[1:] == [
        "n_m[2:4]/float bfloat16 1536x576, density 0.5, NVIDIA H100 1 tiles row 0.001 3.00x",
        "cusparselt 0.002 1.50x",
        "dense 0.003",
    ]


def test_show_as_json(record: TuningRecord) -> None:
    data = json.loads(run("tune", "show", "--json").stdout)
    assert data["record"] == str(record.path)
    assert [entry["current"] for entry in data["entries"]] == [True, True, False]
    assert data["entries"][0]["facts"]["m"] == 128
    assert data["entries"][0]["timings"][STRIPS] == {
        "seconds": 43e-6,
        "noise": 1e-6,
        "disturbed": False,
    }


def test_show_of_nothing(cache_folder: Path) -> None:
    nothing = "nothing was measured for this version and machine yet\n"
    assert run("tune", "show").stdout == nothing
    assert json.loads(run("tune", "show", "--json").stdout)["entries"] == []
    TuningRecord().add("elsewhere", FACTS, TIMINGS)
    assert run("tune", "show").stdout.startswith(nothing)


def test_a_record_moves_from_one_folder_to_another(
    record: TuningRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "moved.jsonl")
    with record.path.open("a") as file:
        file.write("rubbish\n")
    assert run("tune", "export", path).stdout == f"wrote 3 measurements to {path}\n"
    monkeypatch.setenv("SPARSECOMPILE_CACHE_DIR", str(tmp_path / "other"))
    assert run("tune", "import", path).stdout == "3 new measurements\n"
    assert run("tune", "import", path).stdout == "0 new measurements\n"
    assert TuningRecord().entries() == record.entries()


def test_clear_forgets(record: TuningRecord) -> None:
    assert run("tune", "clear").stdout == f"{record.path}: forgot 3 measurements\n"
    assert run("tune", "clear").stdout == f"{record.path}: forgot 0 measurements\n"
    assert record.entries() == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("import", "missing.jsonl"), "cannot read the tuning record missing.jsonl"),
        (("export", "missing/out.jsonl"), "cannot write missing/out.jsonl: No such file"),
        (("import", "thesis.txt"), "thesis.txt is no tuning record"),
    ],
)
def test_an_error_exits_with_1_and_no_traceback(
    words: tuple[str, ...], message: str, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cache_folder.parent)
    Path("thesis.txt").write_text("On sparse matrices\n")
    result = run("tune", *words)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize("words", [("tune", "show"), ("tune", "clear"), ("cache",)])
def test_a_record_that_cannot_be_read(words: tuple[str, ...], cache_folder: Path) -> None:
    cache_folder.mkdir(mode=0o700)
    (cache_folder / "tuning.jsonl").mkdir()
    result = run(*words)
    assert result.exit_code == 1
    assert "cannot read" in result.stderr


def test_the_cache_counts_the_record_and_clears_it(record: TuningRecord) -> None:
    folder = record.path.parent
    files = len(list(folder.iterdir()))
    shown = run("cache").stdout
    assert shown == f"{folder}: {files} files, 0.0 MB, 3 measurements\n"
    assert run("cache", "--clear").stdout == shown.replace(": ", ": deleted ")
    assert list(folder.iterdir()) == []
    assert run("cache").stdout == f"{folder}: 0 files, 0.0 MB\n"


def test_help_lists_the_commands() -> None:
    assert "tune" in run("--help").stdout
    assert all(name in run("tune").output for name in ("show", "export", "import", "clear"))


def test_help_needs_no_code_generation() -> None:
    script = """
import sys
import sparsecompile.commands.app
assert not {"sympy", "sparsecompile.codegen"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
