"""GpuTimer: times by the GPU's own events, weights out of the L2 cache."""

from __future__ import annotations

from collections.abc import Callable

import torch

REPLAYED_ROWS = 16
"""Up to this m a call is shorter than its launch, and is replayed as a CUDA graph."""
WARM_UPS = 3


class GpuTimer:
    """Times calls on one GPU.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        l2 = torch.cuda.get_device_properties(device).L2_cache_size
        # What is written here takes the place of everything that L2 held.
        self._other = torch.empty(2 * l2, dtype=torch.uint8, device=device)

    def ready(self, run: Callable[[], object], *, replay: bool) -> Callable[[], object]:
        """A call that was made before; as a CUDA graph where it is to be replayed."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        if not replay:
            return run
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay

    def evict(self) -> None:
        """Empty L2; the GPU is busy with this while the next call is launched."""
        self._other.zero_()

    def seconds(self, run: Callable[[], object]) -> float:
        """Seconds of one call, between two events."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
