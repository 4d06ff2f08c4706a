"""OpenVINO GenAI, which reads GGUF files."""

from __future__ import annotations

import itertools
from typing import Any

from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.models.gguf_type import AS_IT_IS, gguf_as
from sparsecompile.bench.peers.prepared import Prepared, Sample

TOKENS = 32


class OpenVINOGenAI(Peer):
    """Options: the type of the GGUF file's matrices; `attention`: `SDPA` or `PA`."""

    name = "openvino-genai"
    requires = (("openvino_genai", "openvino-genai"),)

    def variants(self, workload: Workload) -> tuple[str, ...]:
        """Where tokens follow one another."""
        kinds = {"decode": ("Q4_0", "Q8_0"), "generate": ("Q8_0",), "prefill": ("Q8_0",)}
        return kinds.get(workload.kind, ())

    def prepare(self, workload: Workload, job: Job) -> Prepared:
        """Its pipeline, timed by itself: to the first token, or from token to token."""
        import numpy as np
        import openvino as ov
        import openvino_genai as genai

        chosen = job.take(type=AS_IT_IS, attention="SDPA", precision="")
        file = gguf_as(job.model, chosen["type"])
        settings: dict[str, Any] = {
            "ATTENTION_BACKEND": chosen["attention"],
            "INFERENCE_NUM_THREADS": job.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if chosen["precision"]:
            settings["INFERENCE_PRECISION_HINT"] = chosen["precision"]
        pipeline = genai.LLMPipeline(str(file), "CPU", **settings)
        config = genai.GenerationConfig()
        # One more, since what is timed for decoding is what comes after the first.
        config.max_new_tokens = 1 if workload.kind == "prefill" else TOKENS + 1
        config.do_sample, config.ignore_eos = False, True
        turns = itertools.count()

        def run() -> Sample:
            # No prompt begins as the one before, whose keys and values it may keep.
            ids = (np.arange(job.size, dtype=np.int64) + 7 * next(turns) + 1000) % 40_000
            seen = pipeline.generate(ov.Tensor(ids[None]), config).perf_metrics
            if workload.kind == "prefill":
                return {"seconds": seen.get_ttft().mean / 1e3}
            if workload.kind == "decode":
                return {"seconds": seen.get_tpot().mean / 1e3 * TOKENS}
            return {"seconds": seen.get_generate_duration().mean / 1e3 * TOKENS / (TOKENS + 1)}

        items = job.size if workload.kind == "prefill" else TOKENS
        return Prepared(run, items, f"GGUF {chosen['type']}, {chosen['attention']} attention")


COMPONENTS = (OpenVINOGenAI(),)
