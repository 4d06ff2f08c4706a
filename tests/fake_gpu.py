"""A GPU that is not there, for the tuner, and what it says of a linear on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.codegen.triton import workbench
from sparsecompile.codegen.triton.aot import specialization
from sparsecompile.kernels import spec
from sparsecompile.kernels.spec import KernelSpec, Target
from sparsecompile.report.facts import NodeReport

H100 = Target.parse("sm_90")
SPEC = KernelSpec(sc.default_registry().format("n_m[2:4]"), torch.float16)


class Gpu:
    """What torch and Triton say of it, to the code that asks."""

    name, triton, minor = "NVIDIA H100", "3.9.0", 0

    def __init__(self, patch: pytest.MonkeyPatch, major: int = 9) -> None:
        self.major = major
        self.cuda = self
        # Not torch's own functions: Dynamo would go on to start the driver.
        patch.setattr(workbench, "torch", self)
        patch.setattr(spec, "torch", self)
        patch.setattr(specialization, "triton_version", lambda: self.triton)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, device: torch.device) -> Gpu:
        return self

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
