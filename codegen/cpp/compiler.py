"""The C++ compiler: which one, what it accepts, and running it."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.host import host_cpu
from sparsecompile.errors import BuildError, CacheError
from sparsecompile.kernels.spec import digest
from sparsecompile.kernels.target import ISA_LEVELS, Target

logger = logging.getLogger("sparsecompile")
NAMES = ("c++", "g++", "clang++")
# What is hot is written as vectors and unrolled by hand: -O3 builds slower, not better.
OPTIMISATION = (
    "-O2",
    "-ftree-vectorize",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
)
# Of GCC alone: what is not worth it for few rounds is not made vectors.
COST_MODEL = ("-fvect-cost-model=dynamic",)
SHARED = ("-shared", "-fPIC", "-fvisibility=hidden")
HOST = (
    ("-march=native", "-mprefer-vector-width=512"),
    ("-march=native",),
    ("-mcpu=native",),
    (),
)
# GCC splits 512-bit vectors on CPUs that it tunes for 256 bits.
WIDE = ("-mprefer-vector-width=512",)
_known: dict[str, Compiler] = {}
"""What this process has asked: not every cache folder can be written to."""
MISSING = (
    "no C++ compiler was found: install one (`apt install g++`, `dnf install gcc-c++`, "
    "`xcode-select --install`), or name one in the environment variable CXX"
)


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler and what it can do.

    Attributes:
        command: how to call it: a path, and arguments where `CXX` has some.
        version: first line of its `--version`.
        openmp: flags for OpenMP, none where it has no OpenMP.
        host: flags for this machine's instruction set.
        cost_model: flags for when loops become vectors, none where it has no such choice.
        missing: why it cannot be run, where it filled the cache folder and is not here.
    """

    command: tuple[str, ...]
    version: str
    openmp: tuple[str, ...]
    host: tuple[str, ...]
    cost_model: tuple[str, ...]
    missing: str = ""

    @property
    def identity(self) -> tuple[str, ...]:
        """What its work depends on besides flags: the version, and the arguments in `CXX`."""
        return (self.version, *self.command[1:])

    def flags(self, target: Target, standard: str = "c++17") -> tuple[str, ...]:
        """Flags for a shared library of kernels; the host gets all of its own instructions."""
        isa = self.host if target == Target.host() else _isa_flags(target.isa)
        optimisation = (*OPTIMISATION, *self.cost_model)
        return (f"-std={standard}", *optimisation, *isa, *self.openmp, *SHARED)

    def run(self, flags: tuple[str, ...], source: Path, output: Path, kept: Path) -> None:
        """Compile and link one file.

        Args:
            flags: all flags, in order; libraries are last.
            source: the file.
            output: the shared library to make.
            kept: the file's path in messages.

        Raises:
            BuildError: the compiler failed; its stderr is in the message.
        """
        done = _call((*self.command, str(source), "-o", str(output), *flags))
        if done.returncode:
            raise BuildError(
                f"the C++ compiler failed ({shlex.join(self.command)}, exit status "
                f"{done.returncode}) on the generated file {kept}; it was kept. Another "
                "compiler can be named in the environment variable CXX",
                kept,
                done.stderr,
            )


def _isa_flags(isa: str) -> tuple[str, ...]:
    """Flags for the features of a level and of those before it."""
    levels = list(ISA_LEVELS)
    included = levels[: levels.index(isa) + 1]
    names = sorted(feature for level in included for feature in ISA_LEVELS[level])
    # Linux writes avx512_bf16 and amx_tile, compilers avx512bf16 and amx-tile.
    flags = [f"-m{n.replace('amx_', 'amx-').replace('avx512_', 'avx512')}" for n in names]
    return (*flags, *WIDE) if "avx512" in included else tuple(flags)


def find_compiler() -> Compiler:
    """`$CXX`, else `c++`, `g++` or `clang++`, whichever is found first.

    What it accepts is asked once and kept in the cache folder. Where there is no compiler, it is
    the one that filled the folder: what that has built is found, and nothing else can be. A process
    whose kernels run on one thread, for want of OpenMP, is warned.

    Raises:
        BuildError: there is none and was none, or the one in `CXX` does not run.
    """
    store, name = Cache(), f"compiler-{digest(host_cpu())}.json"
    kept = json.loads(store.read(name) or b"{}")
    try:
        command = _command()
    except BuildError as error:
        if not kept:
            raise
        return _compiler(kept, missing=str(error))
    program = Path(command[0]).resolve()
    status = program.stat()
    asked = (*HOST[0], *COST_MODEL)
    key = digest(*command, str(program), str(status.st_size), str(status.st_mtime_ns), *asked)
    if kept.get("key") == key:
        return _compiler(kept)
    compiler = _known.get(key) or _ask(command)
    if not compiler.openmp:
        # Asked again next time: it may have been installed.
        _warn_of_one_thread(shlex.join(command))
        key = ""
    else:
        _known[key] = compiler
    facts = {name: fact for name, fact in asdict(compiler).items() if name != "missing"}
    # Whoever builds will need the folder and say so; an entry that exists needs no writing.
    with suppress(CacheError):
        if store.is_writable():
            store.write(name, json.dumps({**facts, "key": key}).encode())
    return compiler


def _compiler(kept: Mapping[str, Any], missing: str = "") -> Compiler:
    """What was written of a compiler."""
    names = ("command", "openmp", "host", "cost_model")
    words = {name: tuple(kept[name]) for name in names}
    return Compiler(version=kept["version"], missing=missing, **words)


@cache
def _warn_of_one_thread(command: str) -> None:
    logger.warning(
        "%s has no OpenMP: kernels run on one thread. Install it (for clang `apt install "
        "libomp-dev`), or name another compiler in the environment variable CXX",
        command,
    )


def _command() -> tuple[str, ...]:
    chosen = os.environ.get("CXX", "").strip()
    if chosen:
        words = shlex.split(chosen)
        program = shutil.which(words[0])
        if program is None:
            raise BuildError(f"CXX names {words[0]!r}, which is no program; {MISSING}")
        return (program, *words[1:])
    for name in NAMES:
        program = shutil.which(name)
        if program is not None:
            return (program,)
    raise BuildError(MISSING)


def _ask(command: tuple[str, ...]) -> Compiler:
    version = _call((*command, "--version"))
    if version.returncode or not version.stdout.strip():
        raise BuildError(
            f"{shlex.join(command)} --version failed with exit status {version.returncode}; "
            "set the environment variable CXX to a working C++ compiler",
            stderr=version.stderr,
        )
    host = next(flags for flags in HOST if not flags or _accepts(command, flags))
    openmp = ("-fopenmp",) if _accepts(command, ("-fopenmp",)) else ()
    cost_model = COST_MODEL if _accepts(command, COST_MODEL) else ()
    return Compiler(command, version.stdout.splitlines()[0], openmp, host, cost_model)


def _accepts(command: tuple[str, ...], flags: tuple[str, ...]) -> bool:
    """Whether an empty program compiles and links with these flags."""
    program = "int main() { return 0; }\n"
    words = (*command, *flags, "-x", "c++", "-", "-o", os.devnull)
    return _call(words, program).returncode == 0


def _call(words: tuple[str, ...], text: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words, input=text, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise BuildError(
            f"{words[0]} cannot be run: {error.strerror}; set the environment variable CXX to a "
            "working C++ compiler"
        ) from error
