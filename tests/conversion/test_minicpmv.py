"""MiniCPM-V 2.6 as bitsandbytes publishes it: one command makes the text model and the projector from 4-bit weights."""

from __future__ import annotations

from pathlib import Path

import gguf_reader
import numpy as np
import pytest
from minicpmv_files import minicpmv

import streamconv
from streamconv import conversion
from streamconv.conversion import Options

#: tensors of the two files, and where their values are in the checkpoint
TEXT = {
    "token_embd.weight": "llm.model.embed_tokens.weight", "output.weight": "llm.lm_head.weight",
    "blk.0.attn_q.weight": "llm.model.layers.0.self_attn.q_proj.weight",
    "blk.0.attn_k.bias": "llm.model.layers.0.self_attn.k_proj.bias",
    "blk.0.ffn_down.weight": "llm.model.layers.0.mlp.down_proj.weight",
    "blk.0.ffn_gate.weight": "llm.model.layers.0.mlp.gate_proj.weight",
}  # fmt: skip
TOWER = {
    "v.patch_embd.bias": "vpm.embeddings.patch_embedding.bias",
    "v.blk.1.attn_q.weight": "vpm.encoder.layers.1.self_attn.q_proj.weight",
    "v.blk.0.attn_out.weight": "vpm.encoder.layers.0.self_attn.out_proj.weight",
    "v.blk.0.ffn_down.weight": "vpm.encoder.layers.0.mlp.fc1.weight",
    "v.blk.1.ffn_up.weight": "vpm.encoder.layers.1.mlp.fc2.weight",
    "resampler.kv.weight": "resampler.kv_proj.weight", "resampler.attn.out.weight": "resampler.attn.out_proj.weight",
    "resampler.query": "resampler.query",
}  # fmt: skip
Checkpoint = tuple[Path, Path, dict[str, np.ndarray]]


@pytest.fixture(scope="module", params=["towers skipped", "towers quantized"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return minicpmv(tmp_path_factory.mktemp("minicpmv") / "m", request.param == "towers quantized")


def test_both_files_have_the_values_that_the_codes_stand_for(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder, _, values = checkpoint
    paths = streamconv.convert(folder, tmp_path / "x-{part}.gguf", type="F32", mmproj_type="F32", pre="qwen2")
    for path, names in zip(paths, (TEXT, TOWER), strict=True):
        tensors = gguf_reader.read(path).tensors
        for name, source in names.items():
            assert np.array_equal(np.frombuffer(tensors[name].data, "<f4"), values[source].reshape(-1)), name


@pytest.mark.parametrize(("kind", "mmproj"), [("Q4_K_M", "F16"), ("BF16", "F32"), ("Q8_0", "F16")])
def test_both_files_are_those_of_the_decoded_checkpoint(
    checkpoint: Checkpoint, tmp_path: Path, kind: str, mmproj: str
) -> None:
    made = []
    for folder in checkpoint[:2]:
        out = tmp_path / f"{folder.name}-{{part}}.gguf"
        paths = streamconv.convert(folder, out, type=kind, mmproj_type=mmproj, pre="qwen2")
        made.append([
            {name: (t.ne, t.type, t.sha256) for name, t in gguf_reader.read(path).tensors.items()} for path in paths
        ])  # fmt: skip
    assert made[0] == made[1]
    assert all(made[0])


def test_one_pass_reads_everything(checkpoint: Checkpoint, tmp_path: Path) -> None:
    prepared = conversion.prepare(checkpoint[0], tmp_path / "x-{part}.gguf", Options(type="Q4_K_M", pre="qwen2"))
    assert not prepared.left_out
    assert [output.arch for output in prepared.outputs] == ["qwen2", "clip"]
