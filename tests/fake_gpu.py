"""A GPU that is not there, for the tuner."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sparsecompile import spec
from sparsecompile.codegen.triton import workbench
from sparsecompile.codegen.triton.aot import specialization


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
