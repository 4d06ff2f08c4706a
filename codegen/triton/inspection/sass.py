"""NVIDIA machine code: what is in a cubin, by the tools that come with Triton."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from sparsecompile.codegen.triton.inspection.listing import Instruction
from sparsecompile.codegen.triton.inspection.machine_code import Load, MachineCode
from sparsecompile.codegen.triton.inspection.ptx import lines_of_loads
from sparsecompile.errors import BuildError

_LINE = re.compile(r'\s*//## File "(?P<file>.*)", line (?P<line>\d+)')
_LABEL = re.compile(r"(?P<label>\.L_x_\d+):")
_CODE = re.compile(
    r"\s*/\*[0-9a-f]{4,}\*/\s+(?P<guard>@!?\w+\s+)?(?P<name>[A-Z][\w.]*)\s*(?P<operands>[^;]*);"
)
_TARGET = re.compile(r"`\((?P<label>\.L_x_\d+)\)")
_USAGE = re.compile(r"REG:(?P<registers>\d+)\s+STACK:(?P<stack>\d+)\s+SHARED:\d+\s+LOCAL:(\d+)")
_MATRIX = (
    (re.compile(r"UTC[A-Z]*MMA"), "tcgen05"),
    (re.compile(r"[A-Z]GMMA"), "wgmma"),
    (re.compile(r"(H|I|Q|D|B|OM|F)MMA"), "mma.sync"),
)
_WIDTHS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}
_HOW = {"LDG": "registers", "LDGSTS": "cp.async", "UTMALDG": "tma", "UBLKCP": "tma"}


def read_cubin(cubin: bytes, ptx: str, file: str) -> MachineCode:
    """Take a cubin apart.

    Args:
        cubin: with one kernel.
        ptx: that it was made of.
        file: its Triton source; lines of others count as unknown.

    Raises:
        BuildError: a tool is missing, failed, or says what is not understood.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _run("cuobjdump", "-res-usage", str(path))
        text = _run("nvdisasm", "-g", "-c", str(path))
    found = _USAGE.search(usage)
    listing = parse_sass(text, file)
    if found is None or not listing:
        raise BuildError(
            "cuobjdump and nvdisasm say of a cubin what is not understood; report this with the "
            "versions that `sparsecompile version` prints",
            stderr=usage,
        )
    return MachineCode(
        registers=int(found["registers"]),
        stack=int(found["stack"]),
        spills=sum(i.name.split(".")[0] in ("STL", "LDL") for i in listing),
        listing=tuple(listing),
        matrix=_matrix,
        load=partial(_load, lines_of_loads(ptx)),
    )


def parse_sass(text: str, file: str) -> list[Instruction]:
    """Instructions of what `nvdisasm -g -c` prints; padding after the last one is left out."""
    found: list[Instruction] = []
    labels: list[str] = []
    line = 0
    for row in text.splitlines():
        if place := _LINE.match(row):
            line = int(place["line"]) if place["file"] == file else 0
        elif label := _LABEL.match(row):
            labels.append(label["label"])
        elif (code := _CODE.match(row)) and code["name"] != "NOP":
            found.append(_instruction(code, line, tuple(labels)))
            labels = []
    return found


def _instruction(code: re.Match[str], line: int, labels: tuple[str, ...]) -> Instruction:
    name, operands = code["name"], code["operands"].strip()
    target = _TARGET.search(operands) if name.startswith(("BRA", "JMP")) else None
    # A branch with a predicate among its operands may fall through too.
    always = code["guard"] is None and "," not in operands
    ends = always and name.split(".")[0] in ("BRA", "JMP", "EXIT", "RET")
    return Instruction(name, operands, line, labels, target["label"] if target else None, ends)


def _matrix(instruction: Instruction) -> str | None:
    name = instruction.name.split(".")[0]
    return next((kind for pattern, kind in _MATRIX if pattern.fullmatch(name)), None)


def _load(lines: Mapping[tuple[int, int], int], instruction: Instruction) -> Load | None:
    name, *modifiers = instruction.name.split(".")
    how = _HOW.get(name)
    if how is None:
        return None
    # What the copy engine moves has a size of its own.
    bits = 0 if how == "tma" else next((_WIDTHS[m] for m in modifiers if m in _WIDTHS), 32)
    line = instruction.line
    return Load(lines.get((line, bits), line) if how == "registers" else line, bits, how)


def _run(tool: str, *arguments: str) -> str:
    path = tool_path(tool)
    command: Sequence[str] = (path, *arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{path} cannot be run: {error.strerror}; {_NEXT}") from error
    if done.returncode:
        raise BuildError(
            f"{path} failed with exit status {done.returncode}; {_NEXT}", stderr=done.stderr
        )
    return done.stdout


_NEXT = "it comes with Triton's wheel for Linux: pip install --force-reinstall triton"


def tool_path(tool: str) -> str:
    """Where `cuobjdump` or `nvdisasm` is: `$TRITON_NVDISASM_PATH`, else in Triton's wheel.

    Raises:
        BuildError: it is not there.
    """
    from triton import knobs

    try:
        return str(getattr(knobs.nvidia, tool).path)
    except (RuntimeError, OSError) as error:
        raise BuildError(f"there is no {tool}; {_NEXT}") from error
