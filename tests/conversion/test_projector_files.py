"""Projector files are written from any checkpoint that weights are decoded from, and again from a projector file."""

from __future__ import annotations

import json
from pathlib import Path

import gguf_reader
import numpy as np
import pytest
from quantized_files import Tensors, bf16, nf4
from small_models import write_safetensors

import streamconv
from streamconv.errors import UsageError

_FUSED = "visual.blocks.0.attn.qkv.weight"


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A tower of Qwen 2 VL whose fused matrix is stored in NF4, and that matrix."""
    folder, rng = tmp_path / "m", np.random.default_rng(3)
    folder.mkdir()
    shapes = {"visual.patch_embed.proj.weight": (32, 3, 2, 4, 4), "visual.blocks.0.mlp.fc1.weight": (64, 32)}
    tensors: Tensors = {n: ("BF16", bf16(rng.standard_normal(s).astype(np.float32))) for n, s in shapes.items()}
    parts, fused = nf4(_FUSED, (96, 32), rng)
    write_safetensors(folder / "model.safetensors", {**tensors, **parts})
    config = {
        "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "hidden_size": 64,
        "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 4},
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    said = {"image_mean": [0.5, 0.5, 0.4], "image_std": [0.5, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder, fused


def test_a_tower_that_is_stored_in_four_bits_is_decoded(folder: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, fused = folder
    streamconv.convert(path, tmp_path / "x.gguf", type="f32", mmproj=True, threads=1)
    found = gguf_reader.read(tmp_path / "x.gguf").tensors
    thirds = [np.frombuffer(found[f"v.blk.0.attn_{part}.weight"].data, np.float32).reshape(32, 32) for part in "qkv"]
    assert np.array_equal(np.concatenate(thirds), fused)


def test_a_projector_file_is_retyped_as_it_is_made_from_the_checkpoint(
    folder: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path, _ = folder
    for kind in ("f32", "q8_0"):
        streamconv.convert(path, tmp_path / f"{kind}.gguf", type=kind, mmproj=True, threads=1)
    streamconv.convert(tmp_path / "f32.gguf", tmp_path / "again.gguf", type="q8_0", threads=1)
    made, again = (gguf_reader.read(tmp_path / f"{name}.gguf").tensors for name in ("q8_0", "again"))
    assert {name: (t.type, t.sha256) for name, t in made.items()} == {
        name: (t.type, t.sha256) for name, t in again.items()
    }
    assert made["v.patch_embd.weight.1"].type == "F32"


def test_types_of_mixes_are_refused(folder: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a projector file is written in F32, F16, BF16 or Q8_0"):
        streamconv.convert(folder[0], tmp_path / "x.gguf", type="q4_k_m", mmproj=True)
