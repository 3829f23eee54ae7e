"""Merges in real llama.cpp: recipe to quantized file in one step, loaded, answering, and ended by the end of a turn."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import streamconv

_ASK = """
import json, sys, llama_cpp
from llama_cpp import llama_cpp as low
low.default = low.llama_model_default_params
def plain():
    params = low.default()
    params.use_extra_bufts = False  # of processors with AMX: this build of ggml dies there, on its own files, too
    return params
low.llama_model_default_params = llama_cpp.llama_model_default_params = plain
model = llama_cpp.Llama(sys.argv[1], n_ctx=256, n_threads=1, verbose=False)
(end,) = model.tokenize(b"<end_of_turn>", add_bos=False, special=True)
asked = {"messages": [{"role": "user", "content": "What is Python?"}], "max_tokens": 24, "temperature": 0}
plain = model.create_chat_completion(**asked)["choices"][0]
ended = model.create_chat_completion(**asked, logit_bias={end: 100.0})["choices"][0]
print(json.dumps([plain["message"]["content"], ended["finish_reason"], model.metadata["gemma3.block_count"]]))
"""


@pytest.mark.oracle
@pytest.mark.parametrize(("layers", "recipe"), [
    (6, "merge_method: slerp\nbase_model: {m}\nmodels: [{{model: {m}}}, {{model: {twin}}}]\nparameters: {{t: 0.5}}\n"),
    (12, "merge_method: passthrough\nslices:\n" + "- sources: [{{model: {m}, layer_range: [0, 6]}}]\n" * 2),
])  # fmt: skip
def test_a_merge_talks_and_stops(layers: int, recipe: str, tiny_model: Path, peers: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    twin.symlink_to(tiny_model.resolve())
    path, out = tmp_path / "blend.yml", tmp_path / "blend.gguf"
    path.write_text(recipe.format(m=tiny_model, twin=twin))
    streamconv.convert(path, out, type="Q4_K_M", threads=1)
    done = subprocess.run([str(peers), "-c", _ASK, str(out)], capture_output=True, text=True, timeout=300, check=True)
    text, reason, count = json.loads(done.stdout)
    assert text
    assert reason == "stop"
    assert count == str(layers)
