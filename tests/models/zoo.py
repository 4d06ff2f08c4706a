"""What a tiny architecture is, the inputs it takes, and how half of its weights are pruned."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

BATCH = 2
VOCABULARY = 128
LENGTHS = (8, 13, 21)

Inputs = dict[str, Tensor]
Options = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """A small model of one architecture, its inputs, and the three lengths it is run at."""

    name: str
    build: Callable[[], PreTrainedModel]
    inputs: Callable[[PreTrainedModel, int], Inputs]
    lengths: tuple[int, int, int] = LENGTHS


def architecture(
    inputs: Callable[[PreTrainedModel, int], Inputs], lengths: tuple[int, int, int] = LENGTHS
) -> Callable[[Callable[[], PreTrainedModel]], Architecture]:
    """Make an architecture of a function that builds the model; it takes the function's name."""

    def decorate(build: Callable[[], PreTrainedModel]) -> Architecture:
        def seeded() -> PreTrainedModel:
            torch.manual_seed(0)
            model = build()
            model.train(mode=False)
            # Fresh biases are zero and fresh layer scales tiny: neither would show a wrong kernel.
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
            return model

        return Architecture(build.__name__.replace("_", "-"), seeded, inputs, lengths)

    return decorate


def random(*shape: int) -> Tensor:
    """The same normal values for the same shape, whatever was drawn before."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def tokens(*shape: int) -> Tensor:
    """Token ids below the vocabulary and above every special id the configurations keep."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(4, VOCABULARY, shape, generator=generator)


def token_ids(model: PreTrainedModel, length: int) -> Inputs:
    """A batch of sequences of `length` tokens."""
    return {"input_ids": tokens(BATCH, length)}


def images(model: PreTrainedModel, length: int) -> Inputs:
    """`length` small RGB images."""
    return {"pixel_values": random(length, 3, 16, 16)}


def floating_outputs(model: Callable[..., Any], inputs: Inputs) -> dict[str, Tensor]:
    """The floating-point tensors the model returns, by name."""
    return {
        name: value
        for name, value in model(**inputs).items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }


def in_double(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model that computes in double precision."""
    exact = copy.deepcopy(model).double()
    # The grouped product that experts take by default has no double kernel.
    exact.set_experts_implementation("eager")
    return exact


def linears(model: PreTrainedModel) -> dict[str, nn.Linear | Conv1D]:
    """The modules that multiply by a weight of their own, under the name of that weight.

    A weight that is also an embedding is left out: pruning it would change more than a linear.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) not in embeddings
    }


def in_features_last(module: nn.Linear | Conv1D) -> Tensor:
    """A view of the weight whose last dimension is the one a 2:4 pattern runs along."""
    weight = module.weight.detach()
    return weight.t() if isinstance(module, Conv1D) else weight


def prune_half(model: PreTrainedModel) -> set[str]:
    """Prune every other linear weight to 2:4 in place and return the names of those pruned.

    The larger two of every four consecutive inputs stay.
    """
    chosen = dict(list(linears(model).items())[::2])
    for module in chosen.values():
        weight = in_features_last(module)
        groups = weight.reshape(len(weight), -1, 4)
        smaller = groups.abs().topk(2, dim=-1, largest=False).indices
        weight.copy_(groups.scatter(-1, smaller, 0.0).flatten(-2))
    return set(chosen)
