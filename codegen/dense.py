"""The dense linear that torch already has: a candidate wherever a weight is dense."""

from __future__ import annotations

from sparsecompile.errors import Reject
from sparsecompile.kernels.extern import Extern
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target


class DenseLinear(Extern):
    """`torch.nn.functional.linear` on the dense weight: the node stays as it is."""

    name = "dense"

    def supports(self, spec: KernelSpec, target: Target) -> None:
        """Return for every lossless format, of which the dense weight is another spelling.

        Raises:
            Reject: the format or what is done to x is lossy: the dense linear would give another
                result.
        """
        if not spec.format.codec.lossless:
            raise Reject(f"{spec.format} is lossy, the dense weight gives another result")
        if spec.activations != "float":
            raise Reject(f"the dense linear does not round activations to {spec.activations}")


COMPONENTS = (DenseLinear(),)
