"""A backend that recognises masks, and holds what it emits for them against them in every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from sparsecompile.errors import Reject
from sparsecompile.masks.block_mask import BlockMask
from sparsecompile.operators.attention.recognise.ends import Ends, pattern
from sparsecompile.operators.attention.recognise.recognise import recognise
from sparsecompile.testing.pass_laws import apply_passes


def mask_of(node: Node) -> Node | None:
    """The mask of an attention."""
    if node.target is not torch.nn.functional.scaled_dot_product_attention:
        return None
    mask = node.kwargs.get("attn_mask", node.args[3] if len(node.args) > 3 else None)
    return mask if isinstance(mask, Node) else None


@dataclass
class Recorder:
    """The backend.

    Attributes:
        texts: of every mask of every graph the text, or the reason why there is none.
        calls: how often masks were held against what was emitted.
    """

    texts: list[str] = field(default_factory=list)
    calls: int = 0

    def __call__(self, gm: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        edit = apply_passes([], gm, inputs)
        module = edit.module
        emitted: list[tuple[Node, Ends[Node], float | None]] = []
        for mask in dict.fromkeys(filter(None, map(mask_of, module.graph.nodes))):
            try:
                found = recognise(mask)
            except Reject as reject:
                self.texts.append(reject.reason)
                continue
            self.texts.append(found.text)
            emitted.append((mask, found.emit(edit), found.fill))
        (output,) = (node for node in module.graph.nodes if node.op == "output")
        extra = tuple((mask, tuple(vars(ends).values())) for mask, ends, _ in emitted)
        output.args = ((output.args[0], extra),)
        edit.check()

        def run(*args: Any) -> Any:
            outputs, found = module(*args)
            for (mask, ends), (_, _, fill) in zip(found, emitted, strict=True):
                self.calls += 1
                check(mask, Ends(*ends), fill)
            return outputs

        return run


def check(mask: Tensor, ends: Ends[Tensor], fill: float | None) -> None:
    """The tiles of the ends are those of the mask."""
    kept = (mask if fill is None else mask != fill)[(None,) * (4 - mask.dim())]
    assert ends.low.dtype == ends.high.dtype == torch.int32
    blocks = pattern(ends).blocks(*kept.shape[-2:])
    assert torch.equal(blocks.dense().expand_as(kept), kept)
    alike = kept[: blocks.shape[0], : blocks.shape[1]]
    expected = BlockMask.of(alike)
    for name, tensor in blocks.tensors().items():
        assert torch.equal(tensor, expected.tensors()[name]), name


def recorded(
    function: Callable[..., Any], *args: Any, dynamic: bool = False, **kwargs: Any
) -> list[str]:
    """The texts of the masks of a model or function, which is called once."""
    recorder = Recorder()
    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(function, backend=recorder, dynamic=dynamic)(*args, **kwargs)
    return recorder.texts
