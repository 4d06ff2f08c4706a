"""OpenVINO, with a model converted from torch."""

from __future__ import annotations

import sys
from typing import Any

from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.prepared import LeftOut, Prepared, Sample


class OpenVINO(Peer):
    """Options: `f32`, `bf16`, or `int8` through NNCF."""

    name = "openvino"
    requires = (("openvino", "openvino"),)

    def variants(self, workload: Workload) -> tuple[str, ...]:
        """Encoders; language models go through OpenVINO GenAI."""
        return ("bf16", "int8") if workload.kind == "encode" else ()

    def prepare(self, workload: Workload, job: Job) -> Prepared:
        """`convert_model`, with int8 a calibration on random tokens, and `compile_model`."""
        # It would report the conversion to its makers; without this module it does not.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino as ov

        chosen = job.take(type="bf16")["type"]
        if chosen not in ("f32", "bf16", "int8"):
            raise LeftOut(f"{chosen!r} is none of f32, bf16, int8")
        task = workload.torch_task(job, "float32")
        if not task.example:
            raise LeftOut(f"{workload.name} has no model to convert")
        inputs = [tensor.numpy() for tensor in task.example]
        model = ov.convert_model(task.model, example_input=task.example)
        model.reshape({i: list(value.shape) for i, value in enumerate(inputs)})
        if chosen == "int8":
            model = _quantized(model, inputs)
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": job.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32" if chosen == "f32" else "bf16",
        }
        request = ov.compile_model(model, "CPU", settings).create_infer_request()

        def run() -> Sample | None:
            request.infer(inputs)
            return None

        what = {
            "f32": "float32",
            "bf16": "bfloat16",
            "int8": "int8 weights and activations, bfloat16",
        }
        return Prepared(run, task.items, what[chosen])


def _quantized(model: Any, inputs: list[Any]) -> Any:
    try:
        import nncf
    except ImportError:
        raise LeftOut("int8 needs NNCF: pip install nncf") from None
    kind = nncf.ModelType.TRANSFORMER
    return nncf.quantize(model, nncf.Dataset([inputs]), model_type=kind, subset_size=1)


COMPONENTS = (OpenVINO(),)
