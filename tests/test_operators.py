"""Laws over every operator that is registered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from linear_law import sparse_weight
from packing import sparse_

import sparsecompile as sc
from sparsecompile.errors import RegistrationError
from sparsecompile.formats.names import format_of, remember_format
from sparsecompile.operators.operator import Operator
from sparsecompile.testing.operator_laws import check_operator, check_problem

REGISTRY = sc.default_registry()
OPERATORS = REGISTRY.all(Operator)
FORMATS = ("n_m[2:4]", "bitmap", "block[16x16]", "dense/int8", "n_m[2:4]/int4[group=32]")


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_kernels_compute_what_the_model_does(operator: Operator[Any]) -> None:
    checked = 0
    device = sc.Compiler().device
    for problem, sample in operator.examples():
        check_problem(operator, problem, sample, device)
        checked += 1
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


def test_formats_of_one_name_are_told_apart_in_nodes() -> None:
    class Twin(sc.NM):
        """Another structure that is called as one is."""

    own, twin = (sc.Format(structure(2, 4), sc.Float()) for structure in (sc.NM, Twin))
    assert str(own) == str(twin)
    names = [remember_format(format) for format in (own, twin, own, twin)]
    assert names[:2] == names[2:]
    assert [type(format_of(name).structure) for name in names[:2]] == [sc.NM, Twin]
    assert names[0] == "n_m[2:4]/float"
    assert __name__ in names[1]


class Swapped(sc.Rule[None]):
    """`relu(x) -> -x`, which shows where it was done."""

    name, phase = "swapped", sc.Phase.FUSE

    def patterns(self) -> Sequence[sc.Call]:
        return (sc.Call((torch.relu,), ("x",)),)

    def guard(self, match: sc.Match, edit: sc.Edit) -> None:
        pass

    def replace(self, match: sc.Match, facts: None, edit: sc.Edit) -> None:
        edit.replace(match.node, edit.call(torch.neg, (match["x"],), before=match.node))


class Normal(Swapped):
    """The same as preparation, of which nothing is left where no weight is packed."""

    name, phase = "normal", sc.Phase.NORMALIZE


@pytest.mark.parametrize(("rule", "stays"), [(Swapped(), True), (Normal(), False)])
def test_what_is_fused_stays_where_no_weight_is_packed(rule: sc.Pass, stays: bool) -> None:
    backend = sc.Compiler()
    backend.register(rule)
    x = torch.ones(3)
    fast = torch.compile(lambda x: torch.relu(x) + 1, backend=backend)
    assert torch.equal(fast(x), -x + 1 if stays else x + 1)


def test_a_registry_without_the_operator_is_an_error() -> None:
    registry = sc.Registry(*(c for c in REGISTRY.all(sc.Component) if c.name != "linear"))
    model = sparse_(torch.nn.Linear(32, 32)).requires_grad_(False)
    with pytest.raises(RegistrationError, match="no operator is called 'linear'; known: attention"):
        sc.Compiler(registry).explain(model, torch.randn(2, 32))
