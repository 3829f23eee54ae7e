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
from streamconv.errors import BadInput, StreamconvError
from streamconv.metadata import Metadata, Value


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


def refused(data: Path, tmp_path: Path, **keys: Any) -> StreamconvError:
    model = Path(shutil.copytree(data / "checkpoints" / "llama3-bpe" / "hf", tmp_path / "m"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").unlink()
    (model / "config.json").write_text(json.dumps({**config, **keys}))
    with pytest.raises(BadInput) as caught:
        conversion.prepare(model, tmp_path / "x.gguf", Options(type="F16", pre="llama-bpe"))
    return caught.value


@pytest.mark.parametrize("value", [1e30, -5, 2**32, 2**64])
def test_a_number_beyond_its_type_is_refused_where_it_is_set(data: Path, tmp_path: Path, value: float) -> None:
    rope = {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": value, "rope_theta": 1e4}
    error = refused(data, tmp_path, rope_parameters=rope)
    assert "m/config.json: the key llama.rope.scaling.original_context_length would be" in error.message
    assert "does not fit UINT32" in error.message


@pytest.mark.parametrize(
    ("key", "value"),
    [("tie_word_embeddings", "false"), ("tie_word_embeddings", "no"), ("attention_bias", "True"), ("rope_scaling", "linear"),
     ("rope_scaling", [2]), ("rope_parameters", 4)],
)  # fmt: skip
def test_a_text_in_the_place_of_a_flag_or_an_object_is_refused(
    data: Path, tmp_path: Path, key: str, value: Any
) -> None:
    assert f"m/config.json: {key!r} is" in refused(data, tmp_path, **{key: value}).message


@pytest.mark.parametrize(
    ("kind", "value", "fits"),
    [("UINT8", 255, True), ("UINT8", 256, False), ("INT8", -128, True), ("INT8", -129, False), ("UINT64", 2**64 - 1, True),
     ("UINT64", 2**64, False), ("INT64", -(2**63), True), ("UINT32", -1, False), ("UINT32", 1.5, False), ("FLOAT32", 3e38, True),
     ("FLOAT32", 4e38, False), ("FLOAT32", float("nan"), False), ("FLOAT32", 10**400, False), ("FLOAT64", 4e38, True),
     ("FLOAT64", float("inf"), False), ("FLOAT32", "1", False), ("UINT32", True, True)],
)  # fmt: skip
def test_a_metadata_value_is_held_against_its_type(kind: str, value: Any, fits: bool) -> None:
    for given in (Value(kind, value), Value("ARRAY", [0, value], kind)):
        if fits:
            Metadata().add("a.key", given)
        else:
            with pytest.raises(BadInput, match=rf"a\.key would be .* which does not fit {kind}"):
                Metadata().add("a.key", given)


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
