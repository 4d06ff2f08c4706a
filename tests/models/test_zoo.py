"""The zoo itself: half the linears are pruned, the rest are dense, and each pruned one counts."""

import pytest
import torch
from models.zoo import Architecture, floating_outputs, in_features_last, linears, prune_half
from models.zoo_decoders import DECODERS
from models.zoo_encoders import ENCODERS
from models.zoo_perception import PERCEPTION

ARCHITECTURES = (*DECODERS, *ENCODERS, *PERCEPTION)
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)


def test_zoo_is_whole() -> None:
    """No architecture was dropped from its list."""
    assert len({architecture.name for architecture in ARCHITECTURES}) == 28


@every_architecture
@torch.no_grad()
def test_half_is_pruned(architecture: Architecture) -> None:
    """Pruned weights keep two of every four inputs, and the other linears keep all of theirs."""
    model = architecture.build()
    pruned = prune_half(model)
    candidates = linears(model)
    assert 2 * len(pruned) in (len(candidates), len(candidates) + 1)
    for name, module in candidates.items():
        kept = (in_features_last(module) != 0).reshape(-1, 4).sum(-1)
        assert (kept == (2 if name in pruned else 4)).all()


@every_architecture
@torch.no_grad()
def test_every_pruned_weight_counts(architecture: Architecture) -> None:
    """Turning a pruned weight around moves some output by far more than rounding does."""
    model = architecture.build()
    pruned = prune_half(model)
    inputs = architecture.inputs(model, architecture.lengths[0])
    before = floating_outputs(model, inputs)
    for name, module in linears(model).items():
        if name not in pruned:
            continue
        module.weight.neg_()
        after = floating_outputs(model, inputs)
        module.weight.neg_()
        moved = [(after[key] - before[key]).abs().max() / before[key].abs().max() for key in before]
        assert max(moved) > 1e-3, name
