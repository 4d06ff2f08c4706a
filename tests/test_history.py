"""Whatever happens to the weights of a compiled model, in any order: it computes what they say."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from packing import Packing, sparse_
from torch import Tensor, nn

import sparsecompile as sc

WITHIN = 16
"""Calls within which a small write behind torch's back is noticed."""
WIDTH, HIDDEN = 64, 96

places = st.sampled_from([0, 2])


def two_of_four(weight: Tensor) -> Tensor:
    return weight * sc.NM(2, 4).prune(weight)


class History(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        linears = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        first, second = (sparse_(linear).requires_grad_(False) for linear in linears)
        self.model = nn.Sequential(first, nn.ReLU(), second)
        self.grad, self.rows = False, 3
        self.anew()

    def weight(self, place: int) -> nn.Parameter:
        linear = self.model[place]
        assert isinstance(linear, nn.Linear)
        return linear.weight

    def results(self) -> tuple[list[Tensor], list[Tensor]]:
        """Of the compiled model and the model: y and, with gradients, that of x."""
        found = []
        x = torch.randn(self.rows, WIDTH)
        for model in (self.fast, self.model):
            with torch.set_grad_enabled(self.grad):
                given = x.clone().requires_grad_(self.grad)
                y = model(given)
                if self.grad:
                    y.square().sum().backward()
            found.append([y.detach(), *([given.grad] if self.grad else [])])
        return found[0], found[1]

    def agrees(self) -> bool:
        pairs = zip(*self.results(), strict=True)
        return all((a - b).abs().max() <= 1e-5 * b.abs().max() for a, b in pairs)

    @invariant()
    def computes_what_the_weights_say(self) -> None:
        assert self.agrees()

    @rule()
    def anew(self) -> None:
        torch._dynamo.reset()
        self.fast = torch.compile(self.model, backend=Packing())

    @rule(rows=st.sampled_from([1, 3, 5]))
    def with_other_rows(self, rows: int) -> None:
        self.rows = rows

    @rule()
    def with_or_without_gradients(self) -> None:
        self.grad = not self.grad

    @rule(place=places)
    def scale_in_place(self, place: int) -> None:
        with torch.no_grad():
            self.weight(place).mul_(1.5)

    @rule(place=places)
    def scale_data(self, place: int) -> None:
        self.weight(place).data.mul_(0.7)

    @rule(place=places)
    def write_through_numpy(self, place: int) -> None:
        self.weight(place).detach().numpy()[:] *= -1

    @rule(place=places)
    def merge_an_adapter(self, place: int) -> None:
        weight = self.weight(place)
        n, k = weight.shape
        weight.data += torch.randn(n, 4) @ torch.randn(4, k) * 0.1

    @rule(place=places)
    def prune_data(self, place: int) -> None:
        weight = self.weight(place).data
        weight[two_of_four(weight) == 0] = 0
        # Of one that is pruned already nothing else may change.
        weight *= 1.1

    @rule(place=places)
    def prune_unstructured_in_place(self, place: int) -> None:
        with torch.no_grad():
            # Anew each time: of few values a later write would not change much of the weight.
            weight = self.weight(place).normal_()
            weight.mul_((torch.rand_like(weight) > 0.8).float())

    @rule(place=places)
    def replace(self, place: int) -> None:
        new = two_of_four(torch.randn_like(self.weight(place)))
        self.model[place].weight = nn.Parameter(new, requires_grad=False)

    @rule(place=places)
    def other_data(self, place: int) -> None:
        self.weight(place).data = two_of_four(torch.randn_like(self.weight(place)))

    @rule(place=places)
    def swap(self, place: int) -> None:
        new = two_of_four(torch.randn_like(self.weight(place)))
        # Dynamo clears its own references for the backends only that are known to it by name.
        gc.collect()
        if not weakref.getweakrefs(self.weight(place)):
            torch.utils.swap_tensors(self.weight(place), nn.Parameter(new, requires_grad=False))

    @rule(place=places, first=st.integers(0, 3))
    def write_a_quarter_behind_its_back(self, place: int, first: int) -> None:
        weight = self.weight(place)
        rows = weight.shape[0] // 4
        weight.data[first * rows : (first + 1) * rows] += 1

    @rule(place=places, row=st.integers(0, WIDTH - 1))
    def write_a_row_behind_its_back(self, place: int, row: int) -> None:
        self.weight(place).data[row] += 1
        for _ in range(WITHIN):
            self.results()

    @rule()
    def load_what_it_holds(self) -> None:
        self.model.load_state_dict({k: v.clone() for k, v in self.model.state_dict().items()})


@pytest.mark.slow
def test_any_history() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=12,
            phases=(Phase.generate,),
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
