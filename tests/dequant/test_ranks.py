"""Fused matrices of 8-bit floats of which each rank of tensor parallelism stored its own part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_files import write_safetensors

from streamconv import dequant
from streamconv.sources import open_checkpoint

ONE = 0x38  # the 8-bit float 1
CONFIG: dict[str, Any] = {
    "model_type": "mimo_v2", "num_attention_heads": 8, "num_key_value_heads": 4, "swa_num_key_value_heads": 8, "head_dim": 20,
    "v_head_dim": 4, "hybrid_layer_pattern": [0, 1],
}  # fmt: skip


def decoded(folder: Path, name: str, n_rows: int, block: int, n_scales: int, **config: Any) -> Any:
    """The first column of a matrix whose codes are all one and whose rows of scales are 1, 2, …"""
    scales = np.repeat(np.arange(1, n_scales + 1, dtype=np.float32)[:, None], 2, axis=1)
    parts = {name: ("F8_E4M3", np.full((n_rows, 2 * block), ONE, np.uint8)), f"{name}_scale_inv": ("F32", scales)}
    write_safetensors(folder / "model.safetensors", parts)
    section = {"quant_method": "fp8", "weight_block_size": [block, block]}
    (folder / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": section, **config}))
    rows = dequant.decoded(open_checkpoint(folder)).tensors[name]
    return rows.read(0, rows.shape[0])[:, 0]


@pytest.mark.parametrize(
    ("name", "block", "n_ranks", "keys", "values"),
    [
        ("model.layers.0.self_attn.qkv_proj.weight", 24, 4, 20, 4), ("model.layers.1.self_attn.qkv_proj.weight", 40, 8, 20, 4),
        ("model.layers.1.self_attn.qkv_proj.weight", 40, 4, 40, 8), ("model.mtp.layers.0.self_attn.qkv_proj.weight", 40, 4, 40, 8),
    ],
)  # fmt: skip
def test_ranks_come_together_and_each_has_blocks_of_scales_of_its_own(
    tmp_path: Path, name: str, block: int, n_ranks: int, keys: int, values: int
) -> None:
    queries = 160 // n_ranks
    rank = queries + keys + values
    blocks = -(-rank // block)
    found = decoded(tmp_path, name, n_ranks * rank, block, n_ranks * blocks)
    stored = np.array([[r * blocks + row // block + 1 for row in range(rank)] for r in range(n_ranks)], np.float32)
    parts = np.split(stored, [queries, queries + keys], axis=1)
    assert (found == np.concatenate([part.reshape(-1) for part in parts])).all()


def test_a_fused_matrix_of_another_model_stays_as_it_is(tmp_path: Path) -> None:
    name = "model.layers.1.self_attn.qkv_proj.weight"
    found = decoded(tmp_path, name, 352, 44, 8, model_type="phi3")
    assert (found == np.repeat(np.arange(1, 9), 44)).all()
