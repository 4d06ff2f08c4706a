"""What Triton's compilers are held to."""

from __future__ import annotations

import pytest
import triton

from sparsecompile.codegen.triton.inspection.analysis import Analysis

IS_OLDER = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 8)


def check_no_faults(found: Analysis) -> None:
    """No spills, no local memory; older versions of Triton spill some, which is slow, not wrong."""
    if IS_OLDER and (found.spills or found.stack):
        pytest.skip("an older Triton spills here")
    assert found.faults == ()
    assert found.spills == found.stack == 0
