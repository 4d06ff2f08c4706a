"""Loops, and the instructions that the tools print."""

from __future__ import annotations

import pytest

from sparsecompile.codegen.triton.inspection.amdgcn import parse_amdgcn, read_amdgcn
from sparsecompile.codegen.triton.inspection.listing import Instruction, find_loops
from sparsecompile.codegen.triton.inspection.sass import parse_sass
from sparsecompile.errors import BuildError


def listing(text: str) -> list[Instruction]:
    """`a: x` is an instruction with a label, `-> a` a jump, `=> a` one that is always taken."""
    found = []
    for row in text.split("\n"):
        label, _, rest = row.rpartition(":")
        name, _, target = rest.strip().partition("> ")
        ends = name.endswith("=") or name == "end"
        labels = (label.strip(),) if label else ()
        found.append(Instruction(name, "", 0, labels, target or None, ends))
    return found


def loops(text: str) -> list[tuple[int, int, tuple[int, ...]]]:
    return [(loop.head, loop.depth, loop.places) for loop in find_loops(listing(text))]


def test_no_loop() -> None:
    assert find_loops([]) == []
    assert loops("x\n-> a\ny\na: end") == []


def test_loop() -> None:
    assert loops("x\na: y\n-> a\nend") == [(1, 1, (1, 2))]


def test_loops_in_a_loop() -> None:
    text = "a: x\nb: y\n-> b\nc: z\n-> c\n-> a\nend"
    assert loops(text) == [(0, 1, (0, 5)), (1, 2, (1, 2)), (3, 2, (3, 4))]


def test_parts_out_of_line_belong_to_the_loop() -> None:
    text = "x\na: y\n-> wait\nback: z\n-> a\nend\nwait: w\n-> wait\n=> back"
    assert loops(text) == [(1, 1, (1, 2, 3, 4, 8)), (6, 2, (6, 7))]


def test_a_head_that_is_fallen_into() -> None:
    assert loops("=> a\nb: y\n-> c\na: z\n=> b\nc: end") == [(3, 1, (1, 2, 3, 4))]


def test_code_that_is_never_reached() -> None:
    assert loops("x\nend\na: y\n=> a") == []


def test_two_jumps_to_one_head() -> None:
    assert loops("a: x\n-> a\ny\n-> a\nend") == [(0, 1, (0, 1, 2, 3))]


SASS = """
	//## File "/a/kernel.py", line 7
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_1:
	//## File "/a/kernel.py", line 9
        /*0010*/              @!P0 LDG.E.U16 R8, desc[UR20][R6.64] ;
	//## File "/triton/standard.py", line 12
        /*0020*/              @!P0 EXIT ;
        /*0030*/                   BRA.U !UP0, `(.L_x_1) ;
        /*0040*/               @P1 BRA `(.L_x_1) ;
.L_x_2:
        /*0050*/                   BRA `(.L_x_2);
        /*0060*/                   NOP;
"""


def test_sass() -> None:
    found = parse_sass(SASS, "/a/kernel.py")
    assert found == [
        Instruction("LDC", "R1, c[0x0][0x28]", 7),
        Instruction("LDG.E.U16", "R8, desc[UR20][R6.64]", 9, (".L_x_1",)),
        Instruction("EXIT", "", 0),
        Instruction("BRA.U", "!UP0, `(.L_x_1)", 0, (), ".L_x_1"),
        Instruction("BRA", "`(.L_x_1)", 0, (), ".L_x_1"),
        Instruction("BRA", "`(.L_x_2)", 0, (".L_x_2",), ".L_x_2", True),
    ]


AMDGCN = """
kernel:                                 ; @kernel
.Lfunc_begin0:
	.file	1 "/a" "kernel.py"
	.loc	1 7 0 prologue_end             ; kernel.py:7:0
; %bb.36:
	s_load_dwordx2 s[2:3], s[0:1], 0x0
.LBB0_1:                                ; =>This Inner Loop Header: Depth=1
	.file	2 "/triton" "standard.py"
	.loc	2 9 0
	global_load_dwordx2 v[18:19], v[6:7], off ; a comment
	s_cbranch_scc1 .LBB0_1
	s_endpgm
.Lfunc_end0:
	s_nop 0
"""


def test_amdgcn() -> None:
    assert parse_amdgcn(AMDGCN, "/a/kernel.py") == [
        Instruction("s_load_dwordx2", "s[2:3], s[0:1], 0x0", 7, ("kernel", ".Lfunc_begin0")),
        Instruction("global_load_dwordx2", "v[18:19], v[6:7], off", 0, (".LBB0_1",)),
        Instruction("s_cbranch_scc1", ".LBB0_1", 0, (), ".LBB0_1"),
        Instruction("s_endpgm", "", 0, (), None, True),
    ]


def test_assembly_text_without_its_facts() -> None:
    with pytest.raises(BuildError, match="not understood; report this"):
        read_amdgcn(AMDGCN, "/a/kernel.py")


@pytest.mark.parametrize(
    ("name", "operands", "bits", "how"),
    [
        ("global_load_ushort", "v6, v[6:7], off", 16, "registers"),
        ("global_load_sbyte", "v6, v[6:7], off", 8, "registers"),
        ("global_load_short_d16_hi", "v6, v[6:7], off", 16, "registers"),
        ("buffer_load_dwordx4", "v[0:3], v5, s[4:7], 0 offen", 128, "registers"),
        ("buffer_load_dword", "v5, s[4:7], 0 offen lds", 32, "lds"),
        ("global_load_lds_dword", "v[0:1], off", 32, "lds"),
        ("s_load_dword", "s1, s[22:23], 0x80", 32, "registers"),
        ("s_load_dwordx16", "s[4:19], s[0:1], 0x8", 512, "registers"),
    ],
)
def test_loads_on_amd(name: str, operands: str, bits: int, how: str) -> None:
    facts = ("vgpr_count", "private_segment_fixed_size", "vgpr_spill_count")
    text = AMDGCN + "".join(f"    .{fact}: 0\n" for fact in facts)
    code = read_amdgcn(text, "/a/kernel.py")
    load = code.load(Instruction(name, operands, 3))
    assert load is not None
    assert (load.line, load.bits, load.how) == (3, bits, how)
