"""Which class a model is of where config.json does not say so, or names a wrapper."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from streamconv import conversion, models
from streamconv.conversion import Options
from streamconv.errors import BadInput
from streamconv.sources.checkpoint import Checkpoint


def named(config: dict[str, Any], tmp_path: Path) -> tuple[str, list[str]]:
    found = models.named(Checkpoint(tmp_path, {}, config, ()))
    return found.config["architectures"][0], found.warnings


@pytest.mark.parametrize("stated", [None, [], [None], {}, "absent", ["PeftModelForCausalLM"], ["AutoModelForCausalLM"]])
@pytest.mark.parametrize(
    ("kind", "meant"),
    [
        ("llama", "LlamaForCausalLM"), ("mistral", "MistralForCausalLM"), ("mixtral", "MixtralForCausalLM"),
        ("qwen2", "Qwen2ForCausalLM"), ("qwen3_moe", "Qwen3MoeForCausalLM"), ("qwen3_next", "Qwen3NextForCausalLM"),
        ("gemma2", "Gemma2ForCausalLM"), ("gemma3_text", "Gemma3ForCausalLM"), ("gpt_oss", "GptOssForCausalLM"),
        ("bert", "BertModel"), ("t5", "T5ForConditionalGeneration"), ("umt5", "UMT5ForConditionalGeneration"),
        ("granitemoehybrid", "GraniteMoeHybridForCausalLM"), ("falcon_mamba", "FalconMambaForCausalLM"),
    ],
)  # fmt: skip
def test_the_type_of_the_model_says_which_class_it_is(tmp_path: Path, stated: Any, kind: str, meant: str) -> None:
    config = {"model_type": kind} | ({} if stated == "absent" else {"architectures": stated})
    name, notes = named(config, tmp_path)
    assert name == meant
    assert len(notes) == 1
    assert f"{tmp_path}/config.json" in notes[0]
    assert meant in notes[0]


@pytest.mark.parametrize(
    "inner", [{"text_config": {"model_type": "gemma3_text"}}, {"text_config": {}, "vision_config": {}}]
)
def test_a_type_with_a_text_model_inside_is_that_of_the_whole(tmp_path: Path, inner: dict[str, Any]) -> None:
    assert named({"model_type": "gemma3", **inner}, tmp_path)[0] == "Gemma3ForConditionalGeneration"
    assert named({"model_type": "llava", **inner}, tmp_path)[0] == "LlavaForConditionalGeneration"


def test_what_config_json_says_is_what_it_is(tmp_path: Path) -> None:
    for kind in ("qwen2", "my_own", None):
        assert named({"architectures": ["Qwen2Model"], "model_type": kind}, tmp_path) == ("Qwen2Model", [])
    assert named({"architectures": ["FSDPQwen2ForCausalLM"]}, tmp_path)[0] == "Qwen2ForCausalLM"


def test_an_architecture_counts_more_than_the_type_of_another_one_which_is_told(tmp_path: Path) -> None:
    name, (note,) = named({"architectures": ["Qwen2Model"], "model_type": "llama"}, tmp_path)
    assert name == "Qwen2Model"
    assert "config.json names 'Qwen2Model', but its model_type 'llama' is that of 'LlamaForCausalLM'" in note


@pytest.mark.parametrize("config", [{"a": 1}, {"model_type": "qwen99"}, {"model_type": None}, {"model_type": 3}])
def test_a_config_that_says_nothing_is_refused_with_the_line_to_add(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=rf"{tmp_path}/config\.json has no 'architectures'") as refused:
        named(config, tmp_path)
    assert '"architectures": ["LlamaForCausalLM"]' in refused.value.hint


def test_weights_without_a_config_are_told_that_it_is_missing(tmp_path: Path, tiny_model: Path) -> None:
    shutil.copyfile(tiny_model / "model.safetensors", tmp_path / "consolidated.safetensors")
    with pytest.raises(BadInput, match=r"there is no config\.json beside it") as refused:
        conversion.prepare(tmp_path / "consolidated.safetensors", tmp_path / "x.gguf", Options())
    assert "Mistral's own layout" in refused.value.hint


def test_a_model_without_its_class_converts_to_the_same_tensors(data: Path, tmp_path: Path) -> None:
    source = data / "checkpoints" / "qwen3-tied" / "hf"
    model = Path(shutil.copytree(source, tmp_path / "m"))
    config = json.loads((model / "config.json").read_text())
    del config["architectures"]
    (model / "config.json").write_text(json.dumps(config))
    prepared = [conversion.prepare(path, tmp_path / "x.gguf", Options(pre="qwen2")) for path in (source, model)]
    assert len({tuple(t.name for t in each.outputs[0].tensors) for each in prepared}) == 1
    assert [note for note in prepared[1].warnings if "read as 'Qwen3ForCausalLM'" in note]


@pytest.mark.parametrize(
    ("size", "rows", "hint"),
    [(None, 0, "Write vocab_size"), (0, 7, "Write vocab_size"), (0, -9, "are from different models")],
)
def test_a_size_that_does_not_fit_names_all_three_witnesses(
    data: Path, tmp_path: Path, size: int | None, rows: int, hint: str
) -> None:
    """``size`` is added to vocab_size (None: it is taken out), ``rows`` to the rows of the embedding."""
    from container_files import f32, write_safetensors

    model = Path(shutil.copytree(data / "checkpoints" / "llama3-bpe" / "hf", tmp_path / "m"))
    config = json.loads((model / "config.json").read_text())
    n = config["vocab_size"]
    if size is None:
        del config["vocab_size"]
    (model / "config.json").unlink()
    (model / "config.json").write_text(json.dumps(config))
    for path in model.glob("*.safetensors*"):
        path.unlink()
    write_safetensors(model / "model.safetensors", {"model.embed_tokens.weight": f32(n + rows, 8)})
    with pytest.raises(
        BadInput, match=rf"the embedding has {n + rows} rows, the tokenizer \d+ tokens, config.json"
    ) as e:
        conversion.prepare(model, tmp_path / "x.gguf", Options(pre="llama-bpe"))
    assert ("class default" in e.value.message) == (size is None)
    assert hint in e.value.hint
