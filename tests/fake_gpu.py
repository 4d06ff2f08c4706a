"""A GPU that is not there, for the tuner, and what it says of a linear on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.codegen.triton import workbench
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.report.facts import NodeReport

H100 = Target.parse("sm_90")
_target_of_gpu = Target.of_gpu
SPEC = KernelSpec(sc.default_registry().format("n_m[2:4]"), torch.float16)


class Gpu:
    """What torch and Triton say of it, to the code that asks."""

    name, triton, minor = "NVIDIA H100", "3.9.0", 0

    def __init__(self, patch: pytest.MonkeyPatch, major: int = 9) -> None:
        self.major = major
        self.cuda = self
        # Not torch's own functions: Dynamo would go on to start the driver.
        patch.setattr(workbench, "torch", self)
        patch.setattr(Target, "of_gpu", self.target)
        patch.setattr(workbench, "triton_version", lambda: self.triton)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def is_available(self) -> bool:
        return True

    def target(self, device: torch.device) -> Target:
        """The architecture of its properties; torch has its own functions again afterwards."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", self.is_available)
            patch.setattr(torch.cuda, "get_device_properties", lambda device: self)
            return _target_of_gpu(device)

    def current_device(self) -> int:
        return 0

    def get_device_name(self, device: torch.device) -> str:
        return self.name

    def get_device_capability(self, device: torch.device) -> tuple[int, int]:
        return self.major, self.minor


def explain(model: nn.Module, tune: str, rows: int = 4, **options: Any) -> NodeReport:
    """What becomes of a linear with 64 columns."""
    torch._dynamo.reset()
    options = {"target": "sm_90", **options}
    (node,) = sc.explain(model, torch.randn(rows, 64).half(), tune=tune, **options).nodes
    return node


def names(tuned: Tuned) -> set[str]:
    """What was measured."""
    return {name for _, measured in tuned.measured for name in measured}
