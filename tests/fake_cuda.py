"""CUDA tensors without CUDA: fake ones that know their values; a driver that only has a name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode


def on_fake_cuda(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy of a model with its parameters on a GPU that is not there."""
    model = copy.deepcopy(model)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                like = torch.empty_like(parameter, device="meta")
                fake: Any = nn.Parameter(FakeTensor(mode, like, torch.device("cuda:0")), False)
                fake.real_tensor = parameter.detach()
                module._parameters[name] = fake
    return model


@contextmanager
def stub_driver(capability: int) -> Iterator[None]:
    """Let Triton look at its functions as if there were such a GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    before = driver._active

    class Stub:
        def get_current_target(self) -> Any:
            return GPUTarget("cuda", capability, 32)

    driver.set_active(Stub())
    try:
        # torch looks at functions without saying whether additions are fused; Triton 3.9 warns.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
            yield
    finally:
        driver._active = before
