"""Tiny models of every architecture in the zoo: as exact as eager, packed, and not recompiled."""

from collections import defaultdict

import pytest
import torch
from models.zoo import Architecture, Inputs, floating_outputs, in_double, prune_half
from models.zoo_decoders import DECODERS
from models.zoo_encoders import ENCODERS
from models.zoo_perception import PERCEPTION
from packing import Packing
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import PreTrainedModel

from sparsecompile.testing import assert_no_worse

# transformers asks a cached function whether FSDP is there, and Dynamo warns that it traces through
# the cache; it does so in whichever test meets it first.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function:UserWarning"
)

# The first length is compiled as it is, the second for any length, and the third finds that: no
# backend gets fewer. Only a model that takes more is worth the time of asking Dynamo by itself.
FEWEST_GRAPHS = [1, 2, 2]

# What Inductor makes of the rest is most of the time: these differ enough to stand for the others,
# whose packed graphs run as they are. A Llama and a BERT go through it in `tests/real`.
THROUGH_INDUCTOR = {"mixtral", "gpt2", "t5", "vit"}


def doubled(inputs: Inputs) -> Inputs:
    """The same inputs with the floating-point ones in double precision."""
    return {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}


def graphs_without_us(architecture: Architecture, model: PreTrainedModel) -> list[int]:
    """The number of graphs Dynamo has captured after each length when nothing is rewritten."""
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter)
    counts = []
    torch._dynamo.reset()
    for length in architecture.lengths:
        compiled(**architecture.inputs(model, length))
        counts.append(counter.frame_count)
    return counts


def test_what_goes_through_inductor_is_there() -> None:
    assert {a.name for a in (*DECODERS, *ENCODERS, *PERCEPTION)} > THROUGH_INDUCTOR


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [*DECODERS, *ENCODERS, *PERCEPTION], ids=lambda a: a.name)
@torch.no_grad()
def test_pruned_model_compiles(architecture: Architecture) -> None:
    """Outputs are no worse than eager's, all pruned weights are packed, and no graph is extra."""
    torch._dynamo.reset()
    model = architecture.build()
    pruned = prune_half(model)
    exact_model = in_double(model)
    packing = Packing()
    backend = packing.compiler
    through_inductor = architecture.name in THROUGH_INDUCTOR
    compiled = torch.compile(model, backend=backend if through_inductor else packing)

    graphs = []
    outputs: dict[str, list[tuple[Tensor, ...]]] = defaultdict(list)
    for length in architecture.lengths:
        inputs = architecture.inputs(model, length)
        ours = floating_outputs(compiled, inputs)
        eager = floating_outputs(model, inputs)
        exact = floating_outputs(exact_model, doubled(inputs))
        assert ours
        assert ours.keys() == eager.keys()
        for name in ours:
            outputs[name].append((ours[name], eager[name], exact[name]))
        graphs.append(backend.report.graphs)
    for lengths in outputs.values():
        # All lengths together: of few numbers the largest error of one is a matter of chance.
        assert_no_worse(
            *(torch.cat([t.flatten() for t in what]) for what in zip(*lengths, strict=True))
        )

    nodes = [node for node in backend.report.nodes if node.has_weight]
    assert {node.weight for node in nodes if node.packed} == pruned
    assert not {node.weight for node in nodes if not node.packed} & pruned
    assert graphs == FEWEST_GRAPHS or graphs == graphs_without_us(architecture, model)
    assert graphs[1] == graphs[2]
