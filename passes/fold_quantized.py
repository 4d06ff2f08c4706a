"""`fold_quantized`: a linear of a quantised weight becomes a packed linear."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from sparsecompile import (
    LINEAR,
    QUANTIZED_ACTIVATION,
    QUANTIZED_WEIGHT,
    Call,
    Edit,
    KernelSpec,
    Match,
    Pass,
    Phase,
    Reject,
    codec_of,
    insert_packed_linear,
)

_LINEAR = Call(
    LINEAR,
    ("x", "quantized", "bias"),
    where={"quantized": QUANTIZED_WEIGHT},
)


@dataclass(frozen=True)
class FoldQuantized(Pass):
    """`linear(x, quantize_weight(w, codec)) -> packed_linear(x, w, structure/codec)`.

    For the structure that takes the fewest bytes with that codec, `dense` among them, when these
    are fewer than the plain weight's. `quantize_activation(x)` becomes the packed linear's
    `activations`. A linear that cannot be packed so is not quantised at all: `-> linear(x, w)`,
    which `pack_linear` then takes as it takes any other.
    """

    name: ClassVar[str] = "fold_quantized"
    phase: ClassVar[Phase] = Phase.PACK
    before: ClassVar[tuple[str, ...]] = ("pack_linear",)

    def run(self, edit: Edit) -> None:
        """Fold linear by linear."""
        for node in edit.nodes():
            match = _LINEAR.match(node)
            if match is None:
                continue
            rounded = QUANTIZED_ACTIVATION.match(match["x"])
            if rounded is not None:
                writer = edit.writes_between(rounded.node, node)
                if writer is not None:
                    edit.rejected(self.name, node, f"{writer.name} writes in place in between")
                    continue
            try:
                self._fold(match, rounded, edit)
            except Reject as reject:
                edit.rejected(self.name, node, f"not quantized: {reject.reason}")
                self._restore(match, rounded, edit)

    def _fold(self, match: Match, rounded: Match | None, edit: Edit) -> None:
        node, weight = match.node, match["weight"]
        x, activations = (match["x"], "float") if rounded is None else (rounded["x"], "int8")
        codec = codec_of(match["codec"])
        change = f"quantize {codec}" + ", activations int8" * (rounded is not None)
        spec = partial(KernelSpec, activations=activations)
        found = edit.survey(node, weight, codec=codec, spec=spec, change=change)
        format = found.format()
        edit.check_dtypes(weight, x=x, bias=match["bias"])
        edit.replaced(self.name, node)
        new = insert_packed_linear(
            edit,
            x,
            weight,
            match["bias"],
            format,
            before=node,
            activations=activations,
            origins=(node.name,),
        )
        edit.replace(node, new)
        self._erase(rounded, edit)

    def _restore(self, match: Match, rounded: Match | None, edit: Edit) -> None:
        """Keep the node, so that what later passes find in it goes by the same name."""
        quantized = match["quantized"]
        x = match["x"] if rounded is None else rounded["x"]
        match.node.args, match.node.kwargs = (x, match["weight"], match["bias"]), {}
        if not quantized.users:
            edit.erase(quantized)
        self._erase(rounded, edit)

    def _erase(self, rounded: Match | None, edit: Edit) -> None:
        if rounded is not None and not rounded.node.users:
            edit.erase(rounded.node)


COMPONENTS = (FoldQuantized(),)
