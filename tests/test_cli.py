"""The `sparsecompile` command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sparsecompile.commands.app import app
from sparsecompile.commands.model_factory import InputError
from sparsecompile.compiler import Compiler
from sparsecompile.detection.survey import Finding
from sparsecompile.report.facts import GraphReport, KernelChoice, NodeReport
from sparsecompile.report.model import Report

MODULE = """\
import torch


class Add(torch.nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.up = torch.nn.Linear(8, 8, dtype=dtype)

    def forward(self, x, y=0.0):
        return self.up(x) + y


def arguments():
    return Add(), (torch.ones(1, 8),)


def keywords():
    return Add(), {"x": torch.ones(1, 8), "y": 2.0}


def both():
    return Add(), ((torch.ones(1, 8),), {"y": 2.0})


def double():
    return Add(torch.float64), (torch.ones(1, 8, dtype=torch.float64),)


def sparse():
    model = Add()
    with torch.no_grad():
        model.up.weight[:, ::2] = 0
    return model, (torch.ones(1, 8),)


def narrow():
    return Add(), (torch.ones(1, 7),)


def needy(size):
    return Add(), (torch.ones(1, size),)


def only_model():
    return Add()


def only_tensor():
    return Add(), torch.ones(1, 8)


constant = 3
"""

KERNEL = KernelChoice("linear n_m[2:4]/float bfloat16", "generic", "lanes=64", "linear_a")
FINDING = Finding("csr/float", None, "takes 900 bytes, dense 128")
NODE = NodeReport(
    0,
    "linear",
    "up.weight",
    (8, 8),
    "bfloat16",
    0.5,
    (FINDING,),
    "n_m[2:4]/float",
    KERNEL,
    dense_bytes=128,
    packed_bytes=72,
)
SOURCES = {"linear_a": "// first", "linear_b": "// second"}
REPORT = Report("cpu", (GraphReport("def before()", "def after()", (), (NODE,)),), SOURCES)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that holds `shapes.py`, as current directory."""
    (tmp_path / "shapes.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("shapes", "_explained_shapes"):
        sys.modules.pop(name, None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a Compiler was asked to explain; it answers `REPORT`."""
    asked: dict[str, Any] = {}

    def explain(self: Compiler, model: Any, *args: Any, **kwargs: Any) -> Report:
        asked.update(model=model, args=args, kwargs=kwargs, options=self.options)
        return REPORT

    monkeypatch.setattr(Compiler, "explain", explain)
    return asked


@pytest.mark.parametrize("module", ["shapes", "shapes.py", "./shapes.py"])
@pytest.mark.parametrize(
    ("factory", "args", "kwargs"),
    [("arguments", 1, set()), ("keywords", 0, {"x", "y"}), ("both", 1, {"y"})],
)
def test_explain_calls_the_model_as_the_factory_says(
    asked: dict[str, Any], module: str, factory: str, args: int, kwargs: set[str]
) -> None:
    result = run("explain", f"{module}:{factory}")
    assert result.exit_code == 0, result.stderr
    assert type(asked["model"]).__name__ == "Add"
    assert (len(asked["args"]), set(asked["kwargs"])) == (args, kwargs)
    assert result.stdout == f"{REPORT}\n"


def test_explain_finds_modules_beside_a_file(asked: dict[str, Any], folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "torch_models.py").write_text("from shapes import arguments")
    (folder / "shapes.py").rename(folder / "inner" / "shapes.py")
    assert run("explain", "inner/torch_models.py:arguments").exit_code == 0


def test_explain_hands_options_on(asked: dict[str, Any]) -> None:
    words = (
        "--prune",
        "2:4",
        "--quantize",
        "int4",
        "--formats",
        "n_m[2:4],block(16,16),unstructured",
        "--target",
        "cpu[portable]",
        "--tune",
        "cached",
    )
    result = run("explain", "shapes:arguments", *words, "--strict")
    assert result.exit_code == 0, result.stderr
    options = asked["options"]
    assert options.prune == "2:4"
    assert options.quantize == "int4"
    assert options.formats == ("n_m[2:4]", "block(16,16)", "unstructured")
    assert options.target == "cpu[portable]"
    assert options.tune == "cached"
    assert options.strict is True


def test_options_that_are_not_given_keep_their_defaults(asked: dict[str, Any]) -> None:
    assert run("explain", "shapes:arguments").exit_code == 0
    assert asked["options"] == Compiler().options


def test_explain_prints_json_alone(asked: dict[str, Any]) -> None:
    result = run("explain", "shapes:arguments", "--json")
    assert json.loads(result.stdout) == json.loads(REPORT.to_json())


def test_explain_prints_findings(asked: dict[str, Any]) -> None:
    assert FINDING.reason not in run("explain", "shapes:arguments").stdout
    assert FINDING.reason in run("explain", "shapes:arguments", "--findings").stdout


def test_explain_prints_graphs_and_sources(asked: dict[str, Any]) -> None:
    assert run("explain", "shapes:arguments", "--graph").stdout == "def after()\n"
    assert run("explain", "shapes:arguments", "--source", "linear_b").stdout == "// second\n"
    assert run("explain", "shapes:arguments", "--source", "all").stdout == "// first\n// second\n"


def test_explain_writes_html(asked: dict[str, Any], folder: Path) -> None:
    result = run("explain", "shapes:arguments", "--html", "report.html")
    assert result.exit_code == 0
    assert result.stderr == "wrote report.html\n"
    assert "<!DOCTYPE html>" in (folder / "report.html").read_text()


def test_html_in_a_folder_that_is_not_there(asked: dict[str, Any]) -> None:
    result = run("explain", "shapes:arguments", "--html", "no/report.html")
    assert result.exit_code == 1
    assert result.stderr == "error: cannot write no/report.html: No such file or directory\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("shapes",), "'shapes' is not MODULE:FACTORY"),
        ((":make",), "':make' is not MODULE:FACTORY"),
        (("nowhere:make",), "there is no module 'nowhere', here or installed"),
        (("shapes.inner:make",), "there is no module 'shapes.inner', here or installed"),
        (("nowhere.py:make",), "there is no file nowhere.py"),
        (("shapes:make",), "shapes has no 'make'"),
        (("shapes:constant",), "'constant' of shapes is int, not a function"),
        (("shapes:needy",), "shapes:needy needs arguments: size"),
        (("shapes:only_model",), "shapes:only_model returned Add, not (model, inputs)"),
        (
            ("shapes:only_tensor",),
            "inputs that shapes:only_tensor returned are Tensor, not a tuple or dict",
        ),
        (
            ("shapes:arguments", "--source", "x"),
            "no source 'x'; there are: linear_a, linear_b, all",
        ),
        (("shapes:arguments", "--json", "--graph"), "exclude one another"),
        (("shapes:arguments", "--trials", "--graph"), "exclude one another"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_an_example(
    asked: dict[str, Any], words: tuple[str, ...], message: str
) -> None:
    result = run("explain", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "sparsecompile explain demo.py:make" in result.stderr
    assert result.stdout == ""


def test_errors_of_the_model_itself_are_not_hidden(folder: Path) -> None:
    (folder / "shapes.py").write_text("import a_module_that_is_missing")
    for target in ("shapes:make", "shapes.py:make"):
        result = run("explain", target)
        assert isinstance(result.exception, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--formats", "n_m[5:4]"), "5:4 is not an n:m"),
        (("--target", "tpu"), "tpu"),
        (("--tune", "slow"), "option 'tune' must be one of off, cached, fast, full, not 'slow'"),
        (("--strict", "--prune", "2:4"), "up.weight was left dense: "),
    ],
)
def test_an_error_of_ours_exits_with_1_and_no_traceback(
    words: tuple[str, ...], message: str
) -> None:
    result = run("explain", "shapes:double", *words)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ")
    assert message in result.stderr


def test_inputs_that_the_model_does_not_take(folder: Path) -> None:
    program = "from sparsecompile.commands.app import app; app()"
    command = (sys.executable, "-c", program, "explain", "shapes.py:narrow")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    error, where = [line for line in done.stderr.splitlines() if "CUDA" not in line]
    assert error.startswith("error: the model of shapes.py:narrow does not run on its inputs: ")
    assert "[1, 7] X [8, 8]" in error
    assert where == f"  {folder}/shapes.py:10, in forward: return self.up(x) + y"
    assert done.stdout == ""
    other = InputError("shapes:narrow", "something else", ())
    assert str(other).endswith("does not run on its inputs: something else")


def test_explain_says_why_a_real_model_stays_dense() -> None:
    result = run("explain", "shapes:arguments")
    assert result.exit_code == 0
    assert "nothing was packed, 1 of 1: the weight holds no zeros" in result.stdout


@pytest.mark.slow
def test_the_command_as_a_process(folder: Path) -> None:
    program = "from sparsecompile.commands.app import app; app()"
    command = (sys.executable, "-c", program, "explain", "shapes.py:sparse")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 of 1 linears packed | ")
    assert "\x1b" not in done.stdout
