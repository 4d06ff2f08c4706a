"""A third-party package, built, installed and found through its entry point."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from setuptools import build_meta

PLUGIN = Path(__file__).parent / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed package, its metadata included."""
    folder = tmp_path_factory.mktemp("plugin")
    source = folder / "source"
    source.mkdir()
    for path in PLUGIN.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = source / path.relative_to(PLUGIN)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    script = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    assert build_meta
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(folder)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(script: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, folders))
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_structure_pass_and_template_are_used(installed: Path) -> None:
    done = run(
        """
import torch
from torch import nn
import sparsecompile as sc

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 48)

    def forward(self, x):
        return torch.relu(torch.relu(self.inner(x)))

model = Model().requires_grad_(False)
model.inner.weight[:, torch.rand(64) < 0.7] = 0
x = torch.randn(5, 64)
backend = sc.Compiler()
fast = torch.compile(model, backend=lambda gm, inputs: backend.compile(gm, inputs,
                     lambda module, *_: module.forward))
with torch.no_grad():
    torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-5)
(node,) = backend.report.nodes
assert node.format == "columns/float", node
assert node.kernel.template == "columns", node
assert node.epilogue == ("relu",), node
""",
        installed,
    )
    assert done.returncode == 0, done.stderr


def test_an_operator_of_its_own(installed: Path) -> None:
    """Its own kind of node, with a template, an entry, an op, a report row; and the laws hold."""
    done = run(
        """
import torch
from torch import nn
import sparsecompile as sc
from sparsecompile.testing.operator_laws import check_operator

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(96, 64), nn.Linear(64, 8)

    def forward(self, ids):
        return self.head(self.words(ids).sum(-2))

model = Model().requires_grad_(False)
model.words.weight[:, torch.rand(64) < 0.7] = 0
want = model(ids := torch.randint(96, (5, 3)))
backend = sc.Compiler(tune="off")
fast = torch.compile(model, backend=lambda gm, inputs: backend.compile(gm, inputs,
                     lambda module, *_: module.forward))
torch.testing.assert_close(fast(ids), want, rtol=1e-5, atol=1e-5)
(words,) = [node for node in backend.report.nodes if node.reader == "bag"]
assert words.format == "columns/float", words
assert words.kernel.spec == "bag columns/float float32", words
assert words.kernel.template == "columns_bag"
assert "sparse_columns" in backend.report.after, backend.report.after
assert "columns_bag" in str(backend.report)

# Measured against the model's own calls, which are as fast here.
torch._dynamo.reset()
report = sc.explain(model, ids, tune="fast")
(words,) = [node for node in report.nodes if node.reader == "bag"]
assert {t.label for t in words.trials} >= {"dense", "columns_bag bag_columns"}, words.trials

registry = sc.default_registry()
(bag,) = [op for op in registry.all(sc.Operator) if op.name == "bag"]
weight = torch.randn(40, 64) * (torch.rand(64) < 0.4)
assert check_operator(bag, registry.format("columns"), weight, registry)
""",
        installed,
    )
    assert done.returncode == 0, done.stderr


def test_a_plug_in_that_clashes_is_named(installed: Path, tmp_path: Path) -> None:
    """Two packages that bring the same names cannot both be installed."""
    twin = tmp_path / "twin"
    (twin / "columns_twin-1.0.dist-info").mkdir(parents=True)
    (twin / "columns_twin-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: columns-twin\nVersion: 1.0\n"
    )
    (twin / "columns_twin-1.0.dist-info" / "entry_points.txt").write_text(
        "[sparsecompile.plugins]\ncolumns_twin = columns_twin\n"
    )
    (twin / "columns_twin.py").write_text(
        "import sparse_columns.structure as theirs\n"
        "class Columns(theirs.Columns):\n    pass\n"
        "COMPONENTS = (Columns(),)\n"
    )
    done = run("import sparsecompile; sparsecompile.Compiler()", installed, twin)
    assert done.returncode != 0
    assert "Structure 'columns' of" in done.stderr
    assert "already registered by" in done.stderr
    assert "columns_twin" in done.stderr


@given(data=st.data())
def test_the_plug_in_keeps_the_laws(installed: Path, data: st.DataObject) -> None:
    """With the library's own laws, as its author would test it."""
    if str(installed) not in sys.path:
        sys.path.insert(0, str(installed))
    from sparse_columns.structure import Columns

    from sparsecompile import Float, Format
    from sparsecompile.testing import check_format, weights

    weight = data.draw(weights(Columns()))
    columns = torch.tensor(data.draw(st.lists(st.booleans(), min_size=70, max_size=70)))
    check_format(Format(Columns(), Float()), weight * columns[: weight.shape[1]].to(weight.dtype))
