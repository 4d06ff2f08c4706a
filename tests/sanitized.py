"""Programs of generated sources under the sanitizers: no access outside of what they are given."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sparsecompile.codegen.cpp.compiler import Compiler, find_compiler
from sparsecompile.kernels.target import Target

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1")
HEADERS = f"-I{Path(__file__).parent}"


@cache
def compiler() -> Compiler | None:
    """A compiler with sanitizers that run here."""
    found = find_compiler()
    with TemporaryDirectory() as folder:
        source, program = Path(folder, "main.cpp"), Path(folder, "main")
        source.write_text("int main() { return 0; }\n", encoding="utf-8")
        words = [*found.command, str(source), "-o", str(program), *SANITIZERS]
        for each in (words, [program]):
            if subprocess.run(each, capture_output=True, check=False).returncode:
                return None
    return found


def run_sanitized(text: str, target: Target, folder: Path, files: Sequence[Path]) -> None:
    """Build a program of a source and its driver, and run it with these files as arguments."""
    found = compiler() or pytest.skip("there are no sanitizers here")
    main, program = folder / "driver.cpp", folder / "driver"
    main.write_text(text, encoding="utf-8")
    # What is optimised takes three times as long to build, and runs for a twentieth of a second.
    flags = [flag for flag in found.flags(target) if flag not in ("-shared", "-O2")]
    words = [*found.command, str(main), "-o", str(program), *flags, "-O0", HEADERS, *SANITIZERS]
    built = subprocess.run(words, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([program, *files], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
