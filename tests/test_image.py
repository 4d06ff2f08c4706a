"""A container image: a cache that root has filled serves another user, who cannot write to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

NOBODY = "65534"
MODEL = """
import torch
from torch import nn

torch.manual_seed(0)
torch.set_grad_enabled(False)
model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 32)).requires_grad_(False).eval()
for linear in (model[0], model[2]):
    linear.weight[:, ::2] = 0
x = torch.randn(4, 64)

import sparsecompile as sc

def check(backend, **options):
    torch._dynamo.reset()
    fast = torch.compile(model, backend=backend, **options)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)
    return fast
"""
FILL = """
from sparsecompile.codegen.tuning import timings
from sparsecompile.codegen.tuning.measure import Timing

# What is packed must not depend on what is fast at this moment.
timings.measure = lambda race, _: {n: Timing(2.0 - (n != "dense"), 0.001) for n in race}
check("sparse", options={"strict": True})
"""
SERVE = """
backend = sc.Compiler()
check("sparse", options={"strict": True})
check(backend)
print(backend.report)
"""
CHANGES = """
backend = sc.Compiler()
fast = check(backend)
model[0].weight.fill_(1.0)
torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)
assert any("0.weight" in names for names in backend.report.misfits)
"""
LACKS = """
import warnings

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(sc.explain(model, x, quantize="int8", tune="off"))
print(*(warning.message for warning in caught))
"""

Serve = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The caches of an image: ours as it is copied into it, and Inductor's, which it writes to."""
    folder = tmp_path_factory.mktemp("image")
    run(folder, FILL, sys.executable)
    os.chmod(folder, 0o755)
    for path in (folder / "cache", *(folder / "cache").iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in (folder / "inductor", *(folder / "inductor").rglob("*")):
        path.chmod(0o777)
    if os.getuid():
        (folder / "cache").chmod(0o555)
    return folder


def run(
    image: Path, script: str, *command: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    variables = {
        **{name: value for name, value in os.environ.items() if name != "CXX"},
        "SPARSECOMPILE_CACHE_DIR": str(image / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(image / "inductor"),
        "SPARSECOMPILE_TUNE": "fast",
        **environment,
    }
    done = subprocess.run(
        [*command, "-c", MODEL + script],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def serve(image: Path, tmp_path: Path) -> Serve:
    """Run as another user, who can read what root can but write to none of it."""
    words: tuple[str, ...] = ()
    if not os.getuid():
        setpriv = shutil.which("setpriv") or pytest.skip("there is no setpriv")
        reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        users = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        words = (str(setpriv), *users, *reading)

    def serve(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        before = contents(image)
        done = run(image, script, *words, sys.executable, HOME="/nonexistent", **environment)
        assert contents(image) == before
        return done

    return serve


def contents(image: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (image / "cache").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("compiler", [True, False], ids=["compiler", "no compiler"])
def test_everything_is_packed_and_nothing_built(
    compiler: bool, serve: Serve, image: Path, tmp_path: Path
) -> None:
    done = serve(SERVE, **({} if compiler else {"PATH": str(tmp_path)}))
    assert done.stdout.startswith("2 of 2 linears packed")
    assert "chosen: from the tuning record, nothing measured" in done.stdout
    text = " ".join(done.stdout.split())
    assert f"kernels: 2 from the cache folder {image / 'cache'}" in text
    assert "read-only" not in done.stderr
    assert ("Inductor finds no C++ compiler" in done.stderr) == (not compiler)


@pytest.mark.slow
def test_without_a_compiler_weights_that_no_longer_fit_run_dense(
    serve: Serve, tmp_path: Path
) -> None:
    serve(CHANGES, PATH=str(tmp_path))


@pytest.mark.slow
def test_without_a_compiler_what_is_missing_stays_dense_and_is_named(
    serve: Serve, image: Path, tmp_path: Path
) -> None:
    done = serve(LACKS, PATH=str(tmp_path))
    assert done.stdout.startswith("0 of 2 linears packed")
    text = " ".join(done.stdout.split())
    warning = text[text.index("sparsecompile leaves the model dense: no C++ compiler was found") :]
    assert f"is not in the cache folder {image / 'cache'}, which was filled by" in warning


@pytest.mark.slow
def test_with_a_compiler_what_is_missing_is_built(serve: Serve) -> None:
    done = serve(LACKS)
    assert done.stdout.startswith("2 of 2 linears packed")
    assert "kernels: 2 built now" in done.stdout
    assert "is read-only: what it lacks is built and measured for this process" in done.stderr
    private = Path(done.stderr.partition("process alone, in ")[2].partition(",")[0])
    assert private.name.startswith("sparsecompile-")
    assert not private.exists()


@pytest.mark.slow
def test_other_threads_measure_what_was_built(serve: Serve, tmp_path: Path) -> None:
    """The record is of another number of threads; candidates are in the cache."""
    script = "print(*{node.chosen_by for node in sc.explain(model, x).nodes})"
    done = serve(script, PATH=str(tmp_path), OMP_NUM_THREADS="1")
    assert done.stdout == "measured\n"


@pytest.mark.slow
def test_what_was_exported_serves_where_it_is_imported(image: Path, tmp_path: Path) -> None:
    file, other = str(tmp_path / "kernels.tar.gz"), str(tmp_path / "other")
    command = "from sparsecompile.commands.app import app; app(['cache', *sys.argv[1:]])"
    for words, folder in ((("export", file), image / "cache"), (("import", file), other)):
        subprocess.run(
            [sys.executable, "-c", f"import sys; {command}", *words],
            env={**os.environ, "SPARSECOMPILE_CACHE_DIR": str(folder), "PATH": str(tmp_path)},
            check=True,
        )
    # What was measured while others disturbed it would be measured again.
    own = {"SPARSECOMPILE_CACHE_DIR": other, "SPARSECOMPILE_TUNE": "cached", "PATH": str(tmp_path)}
    done = run(image, SERVE, sys.executable, **own)
    assert "chosen: from the tuning record, nothing measured" in done.stdout
    assert f"kernels: 2 from the cache folder {other}" in " ".join(done.stdout.split())
