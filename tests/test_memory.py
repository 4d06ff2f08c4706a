"""What compress does to the memory of a process."""

from __future__ import annotations

import subprocess
import sys

MEMORY = """
import ctypes, gc, torch, sparsecompile as sc

def anonymous():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

def build(n):
    model = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048, bias=False) for _ in range(n)))
    return model.requires_grad_(False)

x = torch.randn(1, 2048)
def compile(model):
    with torch.no_grad():
        # Without Inductor: what it needs is not what is measured.
        compiler = sc.Compiler(tune="off")
        run = lambda gm, inputs: compiler.compile(gm, inputs, lambda m, i, l: m.forward)
        compiled = torch.compile(model, backend=run)
        compiled(x)
    return compiled, compiler.report

kept = compile(sc.compress(build(1), prune="2:4", quantize="int4"))
start = anonymous()
model = build(8)
dense = anonymous() - start
sc.compress(model, prune="2:4", quantize="int4")
packed = anonymous() - start
compiled, report = compile(model)
print(dense, packed, anonymous() - start, report.packed_bytes)
"""


def test_the_dense_weights_are_freed_and_the_packed_ones_kept_once() -> None:
    """134 MB dense, 13 MB packed: resident memory of a process of its own says so."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    dense, packed, compiled, layouts = map(int, done.stdout.split())
    assert dense > 8 * 2048 * 2048 * 4 * 0.95
    assert packed < dense / 8
    assert layouts < dense / 8
    # One layout in place of the canonical tensors, and what a compiled graph takes by itself.
    assert compiled < layouts * 1.5
