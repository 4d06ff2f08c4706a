"""torchao: quantised weights as tensor subclasses, under `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.prepared import LeftOut, Prepared


def _int8(quantization: Any) -> Any:
    return quantization.Int8WeightOnlyConfig()


def _int8_activations(quantization: Any) -> Any:
    return quantization.Int8DynamicActivationInt8WeightConfig()


def _int4(quantization: Any) -> Any:
    try:
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    except ImportError:
        raise LeftOut("this torchao has no int4 weights for CPUs") from None
    return PrototypeInt4WeightOnlyConfig(group_size=32)


CONFIGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "int8-weight-only": ("int8 weights", _int8),
    "int8": ("int8 weights and activations", _int8_activations),
    "int4": ("int4 weights, groups of 32", _int4),
}


class TorchAO(Peer):
    """Options: `int8-weight-only`, `int8`, `int4`; `dtype`."""

    name = "torchao"
    requires = (("torchao", "torchao"),)

    def variants(self, workload: Workload) -> tuple[str, ...]:
        """Weights alone where few rows are multiplied, activations too where many are."""
        return {
            "decode": ("int8-weight-only", "int4"),
            "generate": ("int8-weight-only",),
            "prefill": ("int8",),
            "encode": ("int8",),
        }.get(workload.kind, ())

    def prepare(self, workload: Workload, job: Job) -> Prepared:
        """`quantize_`, then Inductor."""
        from torchao import quantization

        chosen = job.take(type="int8", dtype="bfloat16")
        if chosen["type"] not in CONFIGS:
            raise LeftOut(f"{chosen['type']!r} is none of {', '.join(CONFIGS)}")
        what, config = CONFIGS[chosen["type"]]
        task = workload.torch_task(job, chosen["dtype"])
        quantization.quantize_(task.model, config(quantization))
        return task.prepared(torch.compile(task.function), what)


COMPONENTS = (TorchAO(),)
