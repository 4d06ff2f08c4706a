"""PTX: which lines of the Triton source loads are really for."""

from __future__ import annotations

import re

_LINE = re.compile(r"\s*\.loc\s+\d+\s+(?P<line>\d+)")
_LOAD = re.compile(r".*\bld\.global[\w.:]*?(?:\.v(?P<count>\d))?\.[busf](?P<bits>\d+)\s")
_BEGIN, _END = "// begin inline asm", "// end inline asm"


def lines_of_loads(ptx: str) -> dict[tuple[int, int], int]:
    """`(line that is said, bits) -> line` for loads that are said to be for a later line.

    Triton writes a load as inline assembly, and LLVM counts a line on for each line of that.
    """
    found: dict[tuple[int, int], int] = {}
    line = first = 0
    is_inline = False
    for row in ptx.splitlines():
        if place := _LINE.match(row):
            line = int(place["line"])
            first = first if is_inline and first else line
        elif _BEGIN in row:
            is_inline, first = True, 0
        elif _END in row:
            is_inline = False
            line = first or line
        elif (load := _LOAD.match(row)) and is_inline and first:
            found[line, int(load["count"] or 1) * int(load["bits"])] = first
    return {key: real for key, real in found.items() if key[0] != real}
