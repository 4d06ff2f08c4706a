"""ONNX Runtime, with a model exported from torch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.prepared import LeftOut, Prepared, Sample


class ONNXRuntime(Peer):
    """Options: `float32`, or `int8` with activations quantised as they come."""

    name = "onnxruntime"
    requires = (
        ("onnxruntime", "onnxruntime"),
        ("onnx", "onnx"),
        ("onnxscript", "onnxscript"),
    )

    def variants(self, workload: Workload) -> tuple[str, ...]:
        """Encoders; there is no export of a step with a cache here."""
        return ("float32", "int8") if workload.kind == "encode" else ()

    def prepare(self, workload: Workload, job: Job) -> Prepared:
        """`torch.onnx.export`, with int8 `quantize_dynamic`, and a session."""
        import onnxruntime as ort

        chosen = job.take(type="float32")["type"]
        if chosen not in ("float32", "int8"):
            raise LeftOut(f"{chosen!r} is none of float32, int8")
        task = workload.torch_task(job, "float32")
        if not task.example:
            raise LeftOut(f"{workload.name} has no model to export")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.onnx")
            torch.onnx.export(task.model, task.example, file, dynamo=True, verbose=False)
            if chosen == "int8":
                file = _quantized(file)
            session = ort.InferenceSession(str(file), options, ["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]
        feed = {name: each.numpy() for name, each in zip(names, task.example, strict=True)}

        def run() -> Sample | None:
            session.run(None, feed)
            return None

        what = {"float32": "float32", "int8": "int8 weights and activations, float32"}
        return Prepared(run, task.items, what[chosen])


def _quantized(file: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    to = file.with_name("int8.onnx")
    quantize_dynamic(
        file,
        to,
        weight_type=QuantType.QInt8,
        per_channel=True,
        # Shapes of the export disagree with those that the tool infers once more.
        extra_options={"DefaultTensorType": 1},
    )
    return to


COMPONENTS = (ONNXRuntime(),)
