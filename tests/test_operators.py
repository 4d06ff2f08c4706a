"""Laws over every operator that is registered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from linear_law import sparse_weight

import sparsecompile as sc
from sparsecompile.errors import RegistrationError
from sparsecompile.operators.operator import Operator
from sparsecompile.testing.operator_laws import check_operator

REGISTRY = sc.default_registry()
OPERATORS = REGISTRY.all(Operator)
FORMATS = ("n_m[2:4]", "bitmap", "block[16x16]", "dense/int8", "n_m[2:4]/int4[group=32]")


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_kernels_compute_what_the_model_does(operator: Operator[Any]) -> None:
    checked = 0
    for i, name in enumerate(FORMATS):
        format = REGISTRY.format(name)
        dtype = (torch.float32, torch.bfloat16)[i % 2]
        weight = sparse_weight(format.structure, 80, 96, dtype)
        checked += check_operator(operator, format, weight, REGISTRY)
    assert checked


def test_operators_are_looked_up_by_name() -> None:
    assert {operator.name for operator in OPERATORS} >= {"linear", "embedding"}
    assert REGISTRY.get(Operator, "linear").op == "sparsecompile::linear"
    with pytest.raises(RegistrationError, match="no operator is called 'linaer'; did you mean"):
        REGISTRY.get(Operator, "linaer")


def test_nodes_of_operators_differ() -> None:
    targets = [target for operator in OPERATORS for target in operator.pattern.targets]
    assert len(set(targets)) == len(targets)
    assert all(operator.pattern.parameters[0] for operator in OPERATORS)
