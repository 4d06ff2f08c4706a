"""Under which key timings are recorded."""

from __future__ import annotations

from collections.abc import Mapping

from sparsecompile.codegen.host import host_cpu
from sparsecompile.codegen.sources import sources_digest
from sparsecompile.kernels.spec import digest


def tuning_key(facts: Mapping[str, object]) -> str:
    """The facts and the sources that kernels are of; and this CPU, where they name no GPU."""
    named = (f"{name}={value}" for name, value in sorted(facts.items()))
    cpu = () if "gpu" in facts else (host_cpu(),)
    return digest(*named, *cpu, sources_digest())
