"""Blocks of four-bit floats that a checkpoint has as GGUF has them: copied, with the scale of the whole tensor beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_files import CONFIG, bf16, write_safetensors

import streamconv
from streamconv import check
from streamconv.errors import BadInput, UsageError
from streamconv.rows import matrix_shape
from streamconv.sources import open_checkpoint

TOKENIZER = Path(__file__).resolve().parent.parent / "data" / "tokenizers" / "gemma1"
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
AT = "model.layers.0."
SHAPES = {
    f"{AT}self_attn.q_proj": (64, 64), f"{AT}self_attn.k_proj": (32, 64), f"{AT}self_attn.v_proj": (32, 64),
    f"{AT}self_attn.o_proj": (64, 64), f"{AT}mlp.gate_proj": (128, 64), f"{AT}mlp.up_proj": (128, 64),
    f"{AT}mlp.down_proj": (64, 128),
}  # fmt: skip
PLAIN = {
    "model.embed_tokens.weight": (512, 64), "model.norm.weight": (64,), "lm_head.weight": (512, 64),
    f"{AT}input_layernorm.weight": (64,), f"{AT}post_attention_layernorm.weight": (64,),
}  # fmt: skip
SECTIONS = {
    "modelopt": {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    "compressed": {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
    "mx": {"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"},
}


def model(folder: Path, kind: str) -> tuple[Path, dict[str, np.ndarray]]:
    """A Llama whose layers are four-bit floats, and the values of each."""
    rng, values = np.random.default_rng(6), {}
    tensors: dict[str, tuple[str, np.ndarray]] = {
        name: ("BF16", bf16(rng.standard_normal(shape).astype(np.float32))) for name, shape in PLAIN.items()
    }
    for module, (n, k) in SHAPES.items():
        codes = rng.integers(0, 16, (n, k), np.uint8)
        packed, group = codes[:, 0::2] | codes[:, 1::2] << 4, 32 if kind == "mx" else 16
        raw = (
            rng.integers(110, 125, (n, k // group), np.uint8)
            if kind == "mx"
            else rng.integers(8, 120, (n, k // group), np.uint8)
        )
        whole = np.float32(
            0.25 if kind == "modelopt" else 4
        )  # a power of two, so that products in any order are the same
        tensors[f"{module}.weight" if kind == "modelopt" else f"{module}.weight_packed"] = "U8", packed
        tensors[f"{module}.weight_scale"] = ("U8" if kind == "mx" else "F8_E4M3"), raw
        if kind == "mx":
            scales = np.exp2(raw.astype(np.float32) - 127)
        else:
            scales = ((1 + (raw & 7) / 8) * 2.0 ** ((raw >> 3).astype(int) - 7) * 0.25).astype(np.float32)
            end = "weight_scale_2" if kind == "modelopt" else "weight_global_scale"
            tensors[f"{module}.{end}"] = "F32", whole.reshape(() if kind == "modelopt" else (1,))
        values[module] = E2M1[codes] * np.repeat(scales, group, axis=1)
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(
        json.dumps({**CONFIG, "intermediate_size": 128, "quantization_config": SECTIONS[kind]})
    )
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (folder / name).write_bytes((TOKENIZER / name).read_bytes())
    return folder, values


def whole(rows: Any) -> np.ndarray:
    return np.asarray(rows.read(0, matrix_shape(rows.shape)[0])).reshape(rows.shape)


@pytest.mark.parametrize("kind", SECTIONS)
@pytest.mark.parametrize("asked", [False, True])
def test_blocks_are_copied_and_their_scale_lies_beside_them(tmp_path: Path, kind: str, asked: bool) -> None:
    block = "MXFP4" if kind == "mx" else "NVFP4"
    source, _ = model(tmp_path / "hf", kind)
    options: dict[str, Any] = {"type": "Q8_0", "tensor_types": (f"blk={block}",)} if asked else {}
    streamconv.convert(source, tmp_path / "x.gguf", **options)
    streamconv.convert(source, tmp_path / "y.gguf", type="F32")
    kept, plain = (open_checkpoint(tmp_path / name).tensors for name in ("x.gguf", "y.gguf"))
    blocks = [name for name, rows in kept.items() if rows.dtype == block]
    assert len(blocks) == len(SHAPES)
    for name in blocks:
        scale = f"{name.removesuffix('.weight')}.scale"
        assert (scale in kept) == (kind != "mx")
        factor = whole(kept[scale]) if kind != "mx" else np.float32(1)
        assert np.array_equal(whole(kept[name]) * factor, whole(plain[name])), name
    assert set(plain) == {name for name in kept if not name.endswith(".scale")}
    if not asked:
        metadata = open_checkpoint(tmp_path / "x.gguf").metadata
        assert metadata is not None
        assert metadata.get("general.file_type") == (38 if kind == "mx" else 39)
    assert not [found for found in check.check_gguf(tmp_path / "x.gguf") if found.severity == "error"]


@pytest.mark.parametrize("kind", SECTIONS)
def test_matrices_whose_blocks_are_copied_are_not_fused(tmp_path: Path, kind: str) -> None:
    source, values = model(tmp_path / "hf", kind)
    asked: list[dict[str, Any]] = [
        {},
        {"type": "Q8_0", "tensor_types": (f"blk={'MXFP4' if kind == 'mx' else 'NVFP4'}",)},
    ]
    for options in asked:
        with pytest.raises(UsageError, match="no block has attn_q, attn_k, attn_v as plain matrices"):
            streamconv.plan(source, tmp_path / "x.gguf", fuse_qkv=True, **options)
    streamconv.convert(source, tmp_path / "x.gguf", type="F32", fuse_qkv=True)
    found = whole(open_checkpoint(tmp_path / "x.gguf").tensors["blk.0.attn_qkv.weight"])
    assert np.array_equal(found[96:], values[f"{AT}self_attn.v_proj"])


@pytest.mark.parametrize("kind", SECTIONS)
def test_values_are_those_of_the_definition(tmp_path: Path, kind: str) -> None:
    source, values = model(tmp_path / "hf", kind)
    streamconv.convert(source, tmp_path / "out", type="F32")
    made = open_checkpoint(tmp_path / "out").tensors
    for module, want in values.items():
        assert np.array_equal(whole(made[f"{module}.weight"]), want), module


def test_a_negative_scale_cannot_be_kept(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {
        "w.weight": ("U8", np.zeros((1, 32), np.uint8)), "w.weight_scale": ("F8_E4M3", np.full((1, 4), 0xB8, np.uint8)),
        "w.weight_scale_2": ("F32", np.array(1.0, np.float32)),
    })  # fmt: skip
    rows: Any = streamconv.open(path)["w.weight"]
    with pytest.raises(BadInput, match="negative scale"):
        rows.native("NVFP4", 0, 1)
