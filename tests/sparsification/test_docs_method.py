"""The method of docs/sparsify.md is one."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from sparsification.small import rows, stack

import sparsecompile as sc
from sparsecompile.sparsification.method import Method

PAGE = Path(__file__).parents[2] / "docs" / "sparsify.md"


def test_the_method_of_the_page_keeps_patterns() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, type[Method]] = {}
    exec(blocks[-1].replace("sc.register(Columns())", ""), names)
    model = stack()
    report = sc.sparsify(model, "2:4", method=names["Columns"](), calibration=rows())
    assert report.kept == 0.5
    assert torch.equal(model[0].weight != 0, sc.NM(2, 4).prune(model[0].weight))
