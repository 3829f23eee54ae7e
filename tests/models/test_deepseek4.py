"""DeepSeek V4 from files: types follow from how a matrix is stored, and experts are copied as the blocks that they are."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import gguf_reader
import numpy as np
import pytest
import toys
from small_models import write_safetensors

import streamconv
from streamconv.errors import BadInput, UsageError
from streamconv.kit import Narrowed
from streamconv.sources import open_checkpoint

TOKENIZER = Path(__file__).resolve().parents[1] / "data" / "checkpoints" / "qwen2-yarn" / "hf"
TOY = toys.stored()["deepseek4"]
_EXPERT = re.compile(r"\.experts\.\d+\.w\d\.weight$")


def checkpoint(folder: Path, exponent: int = 120) -> dict[str, np.ndarray]:
    """A checkpoint in ``folder`` whose attention's first matrices are 8-bit floats; what is stored, by name."""
    folder.mkdir()
    rng = np.random.default_rng(4)
    stored: dict[str, tuple[str, np.ndarray]] = {}
    for name, shape in toys.unpacked(TOY["tensors"]):
        if _EXPERT.search(name):
            stored[name] = "I8", rng.integers(-128, 128, (shape[0], shape[1] // 2), np.int8)
            scales = np.full((shape[0], shape[1] // 32), exponent, np.uint8)
            stored[name.replace(".weight", ".scale")] = "F8_E8M0", scales
        elif name.endswith("tid2eid"):
            stored[name] = "I64", rng.integers(0, 8, shape)
        elif name.endswith("wq_a.weight"):
            stored[name] = "F8_E4M3", rng.integers(0, 100, shape, np.uint8)
            stored[name.replace(".weight", ".scale")] = "F8_E8M0", np.full((1, 1), 127, np.uint8)
        elif "hc_" in name or "compressor.w" in name:
            stored[name] = "F32", rng.standard_normal(shape, np.float32)
        else:
            stored[name] = "BF16", rng.integers(0, 1 << 14, shape, np.uint16)
    write_safetensors(folder / "model.safetensors", stored)
    section = {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}
    config = {**TOY["config"], "quantization_config": section, "expert_dtype": "fp4"}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER / name, folder / name)
    return {name: words for name, (_, words) in stored.items()}


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_matrices_keep_the_types_that_they_are_stored_in(kind: str, tmp_path: Path) -> None:
    checkpoint(tmp_path / "hf")
    found = gguf_reader.read(streamconv.convert(tmp_path / "hf", tmp_path / "out.gguf", type=kind, pre="qwen2")[0])
    types = {name: tensor.type for name, tensor in found.tensors.items()}
    assert types["blk.0.attn_q_a.weight"] == "Q8_0"
    assert types["blk.0.attn_q_b.weight"] == types["token_embd.weight"] == types["blk.0.ffn_gate_inp.weight"] == "BF16"
    assert types["blk.1.attn_compressor_kv.weight"] == types["blk.0.hc_attn_fn.weight"] == "F32"
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert found.keys["general.file_type"] == ("UINT32", 38)


def test_experts_are_blocks_that_come_first_behind_the_tables(tmp_path: Path) -> None:
    stored = checkpoint(tmp_path / "hf")
    found = gguf_reader.read(streamconv.convert(tmp_path / "hf", tmp_path / "out.gguf", type="F16", pre="qwen2")[0])
    table, *experts = list(found.tensors)[:4]
    assert table == "blk.0.ffn_gate_tid2eid.weight"
    assert experts == [f"blk.0.ffn_{part}_exps.weight" for part in ("gate", "down", "up")]
    assert found.tensors[table].type == "I32"
    assert found.tensors[table].data == stored["layers.0.ffn.gate.tid2eid"].astype("<i4").tobytes()
    block = np.frombuffer(found.tensors["blk.0.ffn_down_exps.weight"].data, np.uint8).reshape(8, 64, 1, 17)[3, 5, 0]
    codes = stored["layers.0.ffn.experts.3.w2.weight"].view(np.uint8)[5]
    values = np.stack([codes & 15, codes >> 4], axis=1).reshape(-1)
    assert block[0] == 120
    assert (block[1:] == values[:16] | values[16:] << 4).all()


def test_exponents_that_a_float_cannot_hold_are_copied_like_others(tmp_path: Path) -> None:
    """Every byte of an exponent is a power of two to runtimes."""
    checkpoint(tmp_path / "hf", exponent=255)
    found = gguf_reader.read(streamconv.convert(tmp_path / "hf", tmp_path / "out.gguf", type="F16", pre="qwen2")[0])
    assert found.tensors["blk.1.ffn_up_exps.weight"].data[::17] == bytes([255]) * (8 * 32 * 2)


def test_a_mix_leaves_the_tables_alone_and_quantizes_experts_again_only_if_asked(tmp_path: Path) -> None:
    checkpoint(tmp_path / "hf")
    with pytest.raises(UsageError, match=r"_exps.weight \(and 11 more\) is already quantized \(MXFP4\)"):
        streamconv.convert(tmp_path / "hf", tmp_path / "out.gguf", type="Q4_K_M", pre="qwen2")
    options = {"type": "Q4_K_M", "pre": "qwen2", "allow_requantize": True}
    found = gguf_reader.read(streamconv.convert(tmp_path / "hf", tmp_path / "out.gguf", **options)[0])
    assert found.tensors["blk.0.ffn_gate_tid2eid.weight"].type == "I32"
    assert found.keys["general.file_type"] == ("UINT32", 15)


def test_a_number_of_an_expert_that_no_table_can_hold_is_refused(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "t.safetensors", {"table": ("I64", np.array([[1, 1 << 33]]))})
    with pytest.raises(BadInput, match="does not fit 32 bits"):
        Narrowed(open_checkpoint(tmp_path / "t.safetensors").tensors["table"]).native("I32", 0, 1)


def test_a_draft_of_several_tokens_is_refused_by_name_and_left_out_without_an_option() -> None:
    more = {"mtp.0.main_proj.weight": [64, 64], "mtp.0.markov_head.markov_w1.weight": [512, 32]}
    assert set(toys.built(TOY, tensors=lambda t: t.update(more)).left_out) >= set(more)
    with pytest.raises(BadInput, match="is of a DSpark draft"):
        toys.built(TOY, lambda c: c.update(num_nextn_predict_layers=1), lambda t: t.update(more), further="only")
