"""MiMo V2 from files whose experts are four-bit floats beside 8-bit ones."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import gguf_reader
import numpy as np
import toys
from small_models import write_safetensors

import streamconv

TOKENIZER = Path(__file__).resolve().parents[1] / "data" / "checkpoints" / "qwen2-yarn" / "hf"
TOY = toys.stored()["mimo2"]
_EXPERT = re.compile(r"\.experts\.\d+\.\w+_proj\.weight$")


def test_experts_are_copied_as_the_blocks_that_they_are_and_come_first(tmp_path: Path) -> None:
    folder, rng = tmp_path / "hf", np.random.default_rng(5)
    folder.mkdir()
    stored: dict[str, tuple[str, np.ndarray]] = {}
    for name, shape in toys.unpacked(TOY["tensors"]):
        if _EXPERT.search(name):
            stored[name] = "U8", rng.integers(0, 256, (shape[0], shape[1] // 2), np.uint8)
            stored[f"{name}_scale"] = "U8", np.full((shape[0], shape[1] // 32), 121, np.uint8)
        else:
            stored[name] = "BF16", rng.integers(0, 1 << 14, shape, np.uint16)
    write_safetensors(folder / "model.safetensors", stored)
    section = {"quant_method": "fp8", "weight_block_size": [128, 128], "store_dtype": "mxfp4", "mxfp4_block_size": 32}
    (folder / "config.json").write_text(json.dumps({**TOY["config"], "quantization_config": section}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER / name, folder / name)
    found = gguf_reader.read(streamconv.convert(folder, tmp_path / "out.gguf", type="F16", pre="qwen2")[0])
    first = [f"blk.{block}.ffn_{part}_exps.weight" for block in (1, 2) for part in ("down", "gate", "up")]
    assert list(found.tensors)[:6] == first
    block = np.frombuffer(found.tensors["blk.2.ffn_gate_exps.weight"].data, np.uint8).reshape(4, 32, 2, 17)[3, 5, 1]
    codes = stored["model.layers.2.mlp.experts.3.gate_proj.weight"][1][5, 16:]
    values = np.stack([codes & 15, codes >> 4], axis=1).reshape(-1)
    assert block[0] == 121
    assert (block[1:] == values[:16] | values[16:] << 4).all()
    assert found.keys["general.file_type"] == ("UINT32", 38)
