"""AMD machine code: what is in the assembly text that LLVM writes for a kernel."""

from __future__ import annotations

import re
from pathlib import Path

from sparsecompile.codegen.triton.inspection.listing import Instruction
from sparsecompile.codegen.triton.inspection.machine_code import Load, MachineCode
from sparsecompile.errors import BuildError

_FILE = re.compile(r'\s*\.file\s+(?P<number>\d+)\s+(?:"(?P<folder>[^"]*)"\s+)?"(?P<name>[^"]*)"')
_LINE = re.compile(r"\s*\.loc\s+(?P<file>\d+)\s+(?P<line>\d+)")
_LABEL = re.compile(r"(?P<label>[\w.$]+):")
_CODE = re.compile(r"\s+(?P<name>[a-z]\w*)(?:\s+(?P<operands>[^;]*))?")
_FACT = r"^\s*\.{}:\s*(\d+)"
_LOAD = re.compile(
    r"(?:global|buffer|flat|s|s_buffer)_load_(?P<lds>lds_)?"
    r"(?P<type>[us]byte|[us]short|short|dword(?:x\d+)?|b\d+|[iu]\d+)(?:_d16\w*)?"
)
_WIDTHS = {"byte": 8, "short": 16, "dword": 32}


def read_amdgcn(text: str, file: str) -> MachineCode:
    """Take the assembly text of one kernel apart.

    Args:
        text: the text.
        file: its Triton source; lines of others count as unknown.

    Raises:
        BuildError: it says what is not understood.
    """
    listing = parse_amdgcn(text, file)
    # Scalar registers are spilled to lanes of vector registers: where these run out as well, there
    # are bytes in the private segment.
    names = ("vgpr_count", "private_segment_fixed_size", "vgpr_spill_count")
    found = [re.search(_FACT.format(name), text, re.MULTILINE) for name in names]
    facts = [int(match[1]) for match in found if match is not None]
    if len(facts) != len(names) or not listing:
        raise BuildError(
            "the assembly text of a kernel for AMD is not understood; report this with the "
            "versions that `sparsecompile version` prints"
        )
    registers, stack, spills = facts
    return MachineCode(
        registers=registers,
        stack=stack,
        spills=spills,
        listing=tuple(listing),
        matrix=_matrix,
        load=_load,
    )


def parse_amdgcn(text: str, file: str) -> list[Instruction]:
    """Instructions of the one function in a text."""
    found: list[Instruction] = []
    labels: list[str] = []
    numbers: set[str] = set()
    line = 0
    for row in text.splitlines():
        if row.startswith(".Lfunc_end"):
            break
        if declared := _FILE.match(row):
            if _is(declared, file):
                numbers.add(declared["number"])
        elif place := _LINE.match(row):
            line = int(place["line"]) if place["file"] in numbers else 0
        elif label := _LABEL.match(row):
            labels.append(label["label"])
        elif code := _CODE.match(row):
            name, operands = code["name"], (code["operands"] or "").strip()
            target = operands if name.startswith(("s_branch", "s_cbranch")) else None
            ends = name in ("s_branch", "s_endpgm", "s_setpc_b64")
            found.append(Instruction(name, operands, line, tuple(labels), target, ends))
            labels = []
    return found


def _is(declared: re.Match[str], file: str) -> bool:
    return str(Path(declared["folder"] or "", declared["name"])) == file


def _matrix(instruction: Instruction) -> str | None:
    return "mfma" if instruction.name.startswith(("v_mfma", "v_smfmac")) else None


def _load(instruction: Instruction) -> Load | None:
    found = _LOAD.match(instruction.name)
    if found is None:
        return None
    kind = found["type"]
    digits, words = re.fullmatch(r"[biu](\d+)", kind), re.fullmatch(r"dwordx(\d+)", kind)
    if digits is not None:
        bits = int(digits[1])
    elif words is not None:
        bits = 32 * int(words[1])
    else:
        bits = _WIDTHS.get(kind, _WIDTHS.get(kind[1:], 0))
    is_lds = found["lds"] or re.search(r"\blds\b", instruction.operands)
    return Load(instruction.line, bits, "lds" if is_lds else "registers")
