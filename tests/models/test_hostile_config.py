"""Numbers of config.json that no model has: they are refused by name, whatever would be made or counted by them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from streamconv import conversion
from streamconv.conversion import Options
from streamconv.errors import StreamconvError


@pytest.mark.parametrize(
    "value", [10**299, 2**40, 2**31, float("inf"), float("nan"), -1, "x" * 1000, [[]]], ids=lambda v: repr(v)[:12]
)
@pytest.mark.parametrize(
    "key", ["num_hidden_layers", "head_dim", "num_attention_heads", "hidden_size", "rms_norm_eps", "rope_theta"]
)
def test_a_number_that_no_model_has_is_refused_or_used_at_once(
    key: str, value: Any, data: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(data / "checkpoints" / "llama3-bpe" / "hf", tmp_path / "m"))
    config = json.loads((model / "config.json").read_text())
    if key == "rope_theta":
        config.setdefault("rope_parameters", {"rope_type": "default"})["rope_theta"] = value
    (model / "config.json").unlink()
    (model / "config.json").write_text(json.dumps({**config, key: value}))
    began = time.process_time()
    said = None
    try:
        conversion.prepare(model, tmp_path / "x.gguf", Options(type="F16", pre="llama-bpe"))
    except StreamconvError as e:
        said = e
    assert said is None or said.exit_code == 65
    assert said is None or key in said.message or "tensor" in said.message
    assert said is None or len(said.message) < 500
    assert time.process_time() - began < 5


@pytest.mark.parametrize("value", [10**299, float("inf"), float("nan"), True, "7", [1]], ids=lambda v: repr(v)[:12])
@pytest.mark.parametrize("key", ["top_k", "temperature"])
def test_how_a_model_likes_to_be_sampled_is_noted_where_it_cannot_be(
    key: str, value: Any, data: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(data / "checkpoints" / "llama3-bpe" / "hf", tmp_path / "m"))
    (model / "generation_config.json").unlink(missing_ok=True)
    (model / "generation_config.json").write_text(json.dumps({key: value}))
    prepared = conversion.prepare(model, tmp_path / "x.gguf", Options(type="F16", pre="llama-bpe"))
    assert [note for note in prepared.warnings if "not a number that can be used: ignored" in note]
