"""Folders that MLX quantized."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_files import Tensors, bf16, write_safetensors

import streamconv
from streamconv import dequant
from streamconv.errors import BadInput
from streamconv.sources import open_checkpoint

ONES: Tensors = {
    "w.weight": ("U32", np.full((2, 4), 0x11111111, "<u4")), "w.scales": ("BF16", bf16(np.full((2, 1), 0.5))),
    "w.biases": ("BF16", bf16(np.full((2, 1), -2.0))),
}  # fmt: skip
SIZES = {"bits": 4, "group_size": 32}


def folder(at: Path, tensors: Tensors, **config: Any) -> Path:
    at.mkdir()
    write_safetensors(at / "model.safetensors", tensors)
    (at / "config.json").write_text(json.dumps({"architectures": ["X"], **config}))
    return at


@pytest.mark.parametrize("config", [
    {"quantization": SIZES}, {"quantization_config": SIZES}, {"quantization": SIZES, "quantization_config": SIZES},
    {"text_config": {"quantization": SIZES}}, {"quantization": {**SIZES, "mode": "affine", "head": False}},
    {"quantization": {"bits": 8, "group_size": 64, "w": SIZES}}, {"quantization": {**SIZES, "mode": None}},
    {"quantization_config": {"quant_method": "auto-round", "packing_format": "mlx", "sym": True, **SIZES}, "quantization": SIZES},
    {"quantization_config": {"quant_method": "auto-round", "packing_format": "auto_round:mlx", "sym": True, **SIZES}},
])  # fmt: skip
def test_sizes_are_read_wherever_they_stand_and_are_gone_afterwards(tmp_path: Path, config: dict[str, Any]) -> None:
    streamconv.convert(folder(tmp_path / "hf", ONES, **config), tmp_path / "out")
    out = open_checkpoint(tmp_path / "out")
    assert list(out.tensors) == ["w.weight"]
    assert out.tensors["w.weight"].dtype == "BF16"
    assert np.array_equal(out.tensors["w.weight"].read(0, 2), np.full((2, 32), -1.5))
    assert not {"quantization", "quantization_config"} & {*out.config, *out.config.get("text_config", {})}


@pytest.mark.parametrize(("section", "change"), [
    (None, {}), ({"bits": 4}, {}), ({"bits": 7, "group_size": 32}, {}), ({"bits": 8, "group_size": 32}, {}),
    ({**SIZES, "mode": "mxfp4"}, {}), ({**SIZES, "mode": "acme"}, {}), ({**SIZES, "scheme": "acme"}, {}),
    ({**SIZES, "w": {"bits": 4, "group_size": 32, "codebook": 1}}, {}), (SIZES, {"w.scales": None}), (SIZES, {"w.biases": None}),
    (SIZES, {"w.global_scale": ("F32", np.ones(1, np.float32))}), (SIZES, {"w.biases": ("BF16", bf16(np.ones((2, 2))))}),
    (SIZES, {"w.weight": None}),
])  # fmt: skip
def test_what_does_not_fit_is_refused_as_a_checkpoint_of_mlx(tmp_path: Path, section: Any, change: Any) -> None:
    tensors = {name: part for name, part in {**ONES, **change}.items() if part is not None}
    with pytest.raises(BadInput, match=r"(?i)mlx|biases"):
        dequant.decoded(
            open_checkpoint(folder(tmp_path / "hf", tensors, **({"quantization": section} if section else {})))
        )


def test_a_key_of_that_name_that_is_not_of_mlx_stays(tmp_path: Path) -> None:
    plain: Tensors = {"w.weight": ("F32", np.ones((2, 2), np.float32))}
    checkpoint = open_checkpoint(folder(tmp_path / "hf", plain, quantization={"acme": 1}))
    assert dequant.decoded(checkpoint) is checkpoint
