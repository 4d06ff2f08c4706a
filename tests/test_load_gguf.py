"""load_gguf: packed weights from files that package gguf writes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsecompile as sc

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")
HIDDEN, INNER, HEADS, KV_HEADS, WORDS = 128, 256, 4, 2, 96
PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def config() -> Any:
    return transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        tie_word_embeddings=True,
    )


def empty_model(dtype: torch.dtype = torch.float32) -> Any:
    with torch.device("meta"):
        return transformers.LlamaForCausalLM(config()).to(dtype).eval()


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows in the order that llama.cpp has them in: halves of a head in turns."""
    halves = weight.view(heads, 2, -1, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape)


def write(
    path: Path, kind: str, leave_out: str = "", **shapes: tuple[int, ...]
) -> dict[str, Tensor]:
    """A file of one layer in which matrices are of a type; what they are there, by our names."""
    dense = transformers.LlamaForCausalLM(config())
    quantised = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "llama")
    found = {}
    names = {f"blk.0.{part}": f"model.layers.0.{name}" for part, name in PARTS.items()}
    names |= {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    for part, name in names.items():
        if part == leave_out:
            continue
        weight = torch.randn(shapes.get(part, dense.get_parameter(f"{name}.weight").shape))
        if weight.dim() == 2:
            data = gguf.quants.quantize(weight.numpy(), quantised)
            writer.add_tensor(f"{part}.weight", data, raw_dtype=quantised)
            weight = torch.tensor(gguf.quants.dequantize(data, quantised))
            heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(part.rpartition(".")[2])
            if heads:
                # As it is read: the other way round.
                rows = interleaved(torch.arange(len(weight)).view(-1, 1), heads).flatten()
                weight = weight[rows.argsort()]
        else:
            writer.add_tensor(f"{part}.weight", weight.numpy())
        found[f"{name}.weight"] = weight
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


@pytest.mark.parametrize(
    ("kind", "dtype", "codec"),
    [
        ("Q4_0", torch.float32, "int4[group=32,scales=float16,lossless]"),
        ("Q4_1", torch.float32, "int4[group=32,scales=float16,minima,lossless]"),
        ("Q8_0", torch.float32, "int8[group=32,scales=float16,lossless]"),
        ("Q5_0", torch.float32, "int5[group=32,scales=float16,lossless]"),
        ("Q4_0", torch.bfloat16, "int4[group=32,scales=float16,lossless]"),
    ],
)
@torch.no_grad()
def test_what_is_quantised_is_packed_as_it_is(
    kind: str, dtype: torch.dtype, codec: str, tmp_path: Path
) -> None:
    want = write(tmp_path / "model.gguf", kind)
    model = sc.load_gguf(tmp_path / "model.gguf", empty_model(dtype))
    for name, weight in want.items():
        parameter = model.get_parameter(name)
        assert not parameter.requires_grad
        if weight.dim() == 2:
            assert isinstance(parameter, sc.PackedTensor), name
            assert str(parameter.packed.format) == f"dense/{codec}"
            parameter = parameter.packed.unpack()
        assert torch.equal(parameter, weight.to(dtype)), name
    assert model.lm_head.weight is model.model.embed_tokens.weight


@torch.no_grad()
def test_the_model_computes_what_the_dense_one_does(tmp_path: Path) -> None:
    want = write(tmp_path / "model.gguf", "Q4_0")
    model = sc.load_gguf(str(tmp_path / "model.gguf"), empty_model())
    dense = transformers.LlamaForCausalLM(config()).eval()
    dense.load_state_dict({**want, "lm_head.weight": want["model.embed_tokens.weight"]})
    ids = torch.arange(7)[None]
    torch.testing.assert_close(model(ids).logits, dense(ids).logits)


@torch.no_grad()
def test_what_is_not_quantised_stays_dense(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sparsecompile")
    want = write(tmp_path / "model.gguf", "F16")
    model = sc.load_gguf(tmp_path / "model.gguf", empty_model())
    for name, weight in want.items():
        assert torch.equal(model.get_parameter(name), weight)
    assert "model.layers.0.mlp.up_proj.weight: dense: " in caplog.text


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, "Q8_0", leave_out="blk.0.ffn_up")
    with pytest.raises(sc.FileError) as error:
        sc.load_gguf(path, empty_model())
    assert str(error.value) == (
        f"{path}: model.layers.0.mlp.up_proj.weight: is not there; "
        "load it into the model that it is of"
    )
    write(path, "Q8_0", token_embd=(WORDS + 1, HIDDEN))
    with pytest.raises(sc.FileError, match=r"is \[97, 128\], in the model \[96, 128\]; load it"):
        sc.load_gguf(path, empty_model())


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with pytest.raises(FileNotFoundError):
        sc.load_gguf(path, empty_model())
    write(path, "Q8_0")
    whole = path.read_bytes()
    for size in (len(whole) - 100, len(whole) // 2, 200, 30, 3):
        path.write_bytes(whole[:size])
        with pytest.raises(sc.FileError, match=r"model\.gguf: cannot be read: .*; convert or down"):
            sc.load_gguf(path, empty_model())
    path.write_bytes(b"PK" + whole[2:])
    with pytest.raises(sc.FileError, match="GGUF magic invalid"):
        sc.load_gguf(path, empty_model())


def test_models_without_names_in_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model.gguf", "Q8_0")
    with pytest.raises(sc.ModelError, match="Linear is no model of transformers"):
        sc.load_gguf(tmp_path / "model.gguf", nn.Linear(2, 2))
    model = empty_model()
    model.config.model_type = "unheard_of"
    with pytest.raises(sc.ModelError, match="LlamaForCausalLM has no names in GGUF: Unknown gguf"):
        sc.load_gguf(tmp_path / "model.gguf", model)


def test_types_that_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError

    write(tmp_path / "model.gguf", "Q8_0")
    monkeypatch.setattr(gguf, "dequantize", refuse)
    with pytest.raises(sc.FileError, match="which package gguf does not decode; convert"):
        sc.load_gguf(tmp_path / "model.gguf", empty_model())


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(sc.ModelError, match="pip install gguf transformers"):
        sc.load_gguf(tmp_path / "model.gguf", empty_model())


def test_a_file_of_no_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model.gguf", "Q8_0")
    read = gguf.GGUFReader

    def reader(path: Path) -> Any:
        found = read(path)
        del found.fields["general.architecture"]
        return found

    monkeypatch.setattr(gguf, "GGUFReader", reader)
    with pytest.raises(sc.FileError, match="does not say of which architecture it is; convert"):
        sc.load_gguf(tmp_path / "model.gguf", empty_model())


@pytest.mark.parametrize("with_parameter", [False, True])
def test_buffers_that_nobody_can_fill(with_parameter: bool, tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", "Q8_0")
    model = empty_model()
    owner = model.model.norm if with_parameter else model.model.layers[0]
    owner.register_buffer("seen", torch.ones(3, device="meta"), persistent=False)
    with pytest.raises(sc.ModelError, match=r"does not say what model\.\S+\.seen hold: make it on"):
        sc.load_gguf(tmp_path / "model.gguf", model)
