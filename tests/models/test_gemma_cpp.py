"""The configuration and the tables of gemma.cpp's weight files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import DATA

from streamconv.errors import BadInput, UsageError
from streamconv.kit import Zeros
from streamconv.models.gemma_cpp.from_hf import described
from streamconv.models.gemma_cpp.model_config import LayerConfig, ModelConfig, parse_config
from streamconv.models.gemma_cpp.models import MODELS, parse_specifier
from streamconv.models.gemma_cpp.tensors import LAYOUTS, tensors
from streamconv.sources.checkpoint import Checkpoint

#: what gemma.cpp writes for its models, by specifier
CONFIGS = np.load(DATA / "sbs" / "configs.npz")
_GEMMA2 = {"model_type": "gemma2", "query_pre_attn_scalar": 256, "eos_token_id": 1, "max_position_embeddings": 8192}
_TOWER = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14,
    "model_type": "siglip_vision_model",
}  # fmt: skip


def _sizes(d: int, f: int, heads: int, kv: int, n: int, width: int = 256, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": d, "intermediate_size": f, "num_attention_heads": heads, "num_key_value_heads": kv,
        "num_hidden_layers": n, "head_dim": width, **more,
    }  # fmt: skip


def _gemma3(window: int, *sizes: int, **more: Any) -> dict[str, Any]:
    said = {
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": 256,
        "sliding_window": window,
        "eos_token_id": [1, 106],
    }
    return {**said, **_sizes(*sizes), **more}


def _paligemma(side: int, text: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "paligemma",
        "text_config": {**_GEMMA2, **text},
        "vision_config": {**_TOWER, "image_size": side},
    }


_2B, _9B = _sizes(2304, 9216, 8, 4, 26), _sizes(3584, 14336, 16, 8, 42)
#: specifier -> architecture, rows of the embedding, config.json as it is published
PUBLISHED: dict[str, tuple[str, int, dict[str, Any]]] = {
    "gemma2-2b-sfp-it": ("Gemma2ForCausalLM", 256000, {**_GEMMA2, **_2B}),
    "gemma2-2b-sfp-pt": ("Gemma2ForCausalLM", 256000, {**_GEMMA2, **_2B}),
    "27b-sfp-it": (
        "Gemma2ForCausalLM", 256000, {**_GEMMA2, **_sizes(4608, 36864, 32, 16, 46, 128), "query_pre_attn_scalar": 144},
    ),
    "gemma3-270m-sfp-it": ("Gemma3ForCausalLM", 262144, _gemma3(512, 640, 2048, 4, 1, 18)),
    "gemma3-1b-sfp": ("Gemma3ForCausalLM", 262144, _gemma3(512, 1152, 6912, 4, 1, 26)),
    "gemma3-12b-sfp": (
        "Gemma3ForConditionalGeneration", 262208,
        {
            "model_type": "gemma3", "mm_tokens_per_image": 256, "vision_config": {**_TOWER, "image_size": 896},
            "text_config": _gemma3(1024, 3840, 15360, 16, 8, 48, rope_scaling={"factor": 8.0, "rope_type": "linear"}),
        },
    ),
    "paligemma2-3b-224-sfp": ("PaliGemmaForConditionalGeneration", 257216, _paligemma(224, _2B)),
    "paligemma2-10b-448-sfp": ("PaliGemmaForConditionalGeneration", 257216, _paligemma(448, _9B)),
}  # fmt: skip


def checkpoint(architecture: str, n_rows: int, config: dict[str, Any], **side: bytes) -> Checkpoint:
    """A checkpoint of which nothing is there but what the configuration is told from."""
    width = config.get("text_config", config)["hidden_size"]
    names = {"model.embed_tokens.weight": Zeros((n_rows, width), "BF16")}
    if "vision_config" in config:
        names["model.vision_tower.embeddings.patch_embedding.weight"] = Zeros((1152, 3, 14, 14), "BF16")
    return Checkpoint(Path("m"), names, {"architectures": [architecture], **config}, (), side=side)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_become_what_gemma_cpp_has_for_these_models(name: str) -> None:
    template = {"chat_template.jinja": b"x"} if name.endswith("-it") else {}
    found = described(checkpoint(*PUBLISHED[name], **template))
    want = parse_config(CONFIGS[name].tobytes())
    assert found.config.pack()[:4] == CONFIGS[name].tobytes()[:4]
    assert found.config == ModelConfig(**{**vars(want), "weight": 0})


@pytest.mark.parametrize("name", CONFIGS.files)
def test_configurations_are_read_and_written_word_for_word(name: str) -> None:
    data = CONFIGS[name].tobytes()
    config = parse_config(data)
    assert config.pack() == data
    known, wrapping = parse_specifier(name)
    assert (known.number, known.display_name) == (config.model, config.display_name)
    assert wrapping == config.wrapping
    for layout in LAYOUTS:
        assert max(len(entry.key) for entry in tensors(config, layout)) <= 16


def test_words_that_are_missing_or_too_many_change_nothing_else() -> None:
    config = parse_config(CONFIGS["gemma2-2b-sfp-it"].tobytes())
    words = np.frombuffer(CONFIGS["gemma2-2b-sfp-it"].tobytes(), "<u4")
    shorter = words[:15].copy()
    shorter[0] = 14
    assert parse_config(shorter.tobytes()) == ModelConfig(
        display_name=config.display_name, model=7, weight=3, num_layers=26, model_dim=2304, vocab_size=256000, max_seq_len=8192,
        att_cap=50.0,
    )  # fmt: skip
    longer = np.append(words, np.uint32(9))
    longer[0] += 1
    assert parse_config(longer.tobytes()) == config
    with pytest.raises(BadInput):
        parse_config(words[:40].tobytes())


def test_keys_that_no_file_can_have_are_refused_with_tensor_and_limit() -> None:
    config = ModelConfig(
        model_dim=64, vocab_size=64, layer_configs=(LayerConfig(64, heads=1, kv_heads=1, qkv_dim=64),) * 1000
    )
    with pytest.raises(BadInput, match=r"'att_w_999' of tensor 'layers.999.self_attn.o_proj.weight' ends in 999"):
        list(tensors(config))


def test_the_scale_of_a_model_is_told_where_the_runtime_does_not_apply_it() -> None:
    notes = described(checkpoint(*PUBLISHED["gemma3-12b-sfp"])).notes
    assert any("positions of full attention are divided by 8" in note for note in notes)


def test_a_window_as_long_as_the_context_is_refused_for_gemma_3() -> None:
    with pytest.raises(UsageError, match="--max-seq-len 512"):
        described(checkpoint(*PUBLISHED["gemma3-1b-sfp"]), max_seq_len=512)


@pytest.mark.parametrize("text", ["gemma2-4b", "gemma3-1b-it", "", "gemma2"])
def test_a_model_that_gemma_cpp_has_not_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_specifier(text)


def test_numbers_of_models_are_told_apart() -> None:
    assert len({known.number for known in MODELS.values()}) == len(MODELS) == 12


@pytest.mark.parametrize("sees", [False, True])
def test_the_first_generation_goes_by_a_number_of_the_second_and_keeps_its_sizes(sees: bool) -> None:
    text = {"model_type": "gemma", "max_position_embeddings": 8192, **_sizes(2048, 16384, 8, 1, 18)}
    config = _paligemma(224, {}) | {"text_config": text} if sees else text
    name, n_rows = ("PaliGemmaForConditionalGeneration", 257216) if sees else ("GemmaForCausalLM", 256000)
    found, _, notes = described(checkpoint(name, n_rows, config))
    assert (found.model, found.vocab_size) == ((10, 257152) if sees else (7, 256000))
    assert (found.num_layers, found.model_dim, found.att_cap, found.final_cap) == (18, 2048, 0, 0)
    assert found.attention_window_sizes == (8192,) * 18
    assert not any(layer.post_norm for layer in found.layer_configs)
    assert any("has no number for" in note for note in notes)


def test_gemma_3_without_its_tower_is_a_text_model() -> None:
    architecture, _, config = PUBLISHED["gemma3-12b-sfp"]
    found, _, notes = described(
        checkpoint(architecture, 262208, {k: v for k, v in config.items() if k != "vision_config"})
    )
    assert (found.model, found.vocab_size, found.vit_config.layer_configs) == (16, 262144, ())
    assert "the checkpoint has no tower of images: the output is a text model" in notes
