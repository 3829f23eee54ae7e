"""Projectors of sound and of several towers: sizes by either name, class defaults, and what runtimes cannot compute."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from small_models import write_safetensors

from streamconv.errors import BadInput, InputMissing
from streamconv.kit import sine
from streamconv.models.config import Config
from streamconv.models.projectors._sound_rows import positions
from streamconv.quant.converter_types import converter_types
from streamconv.quant.filetypes import FILE_TYPES
from streamconv.quant.mix_facts import TensorFacts
from streamconv.sources import open_checkpoint

TOYS = toys.stored(toys.PROJECTORS)
Change = Callable[[dict[str, Any]], Any]


def types(name: str, file_type: str) -> dict[str, str]:
    """GGUF name -> type in a file of ``file_type``."""
    model = toys.built(TOYS[name])
    facts = [TensorFacts(each, rows.shape, rows.dtype) for each, rows in model.tensors.items()]
    return {c.name: c.type.name for c in converter_types(facts, FILE_TYPES[file_type], model.forced_types)}


def said(name: str, change: Change) -> Callable[[str], Any]:
    """The keys of a toy after its config.json was changed."""
    return toys.built(TOYS[name], config=change).metadata.get


@pytest.mark.parametrize("file_type", ["F32", "BF16", "Q8_0"])
def test_first_layers_of_whisper_are_f16_in_files_of_any_type(file_type: str) -> None:
    assert types("voxtral", file_type)["a.conv1d.1.weight"] == "F16"
    assert types("audioflamingo3", file_type)["a.conv1d.1.weight"] == "F32"


def test_routers_of_experts_are_f32() -> None:
    found = types("dots3note-mm", "BF16")
    assert (
        found["v.blk.1.ffn_gate_inp.weight"]
        == found["v.blk.1.exp_probs_b.weight"]
        == found["a.conv_out.weight"]
        == "F32"
    )
    assert found["v.blk.1.ffn_up_exps.weight"] == "BF16"


@pytest.mark.parametrize("name", ["voxtral", "qwen2audio", "audioflamingo3"])
def test_sizes_that_config_does_not_say_are_those_of_whisper_large(name: str) -> None:
    get = said(name, lambda c: c.update(audio_config={"model_type": c["audio_config"]["model_type"]}))
    sizes = [
        get(f"clip.audio.{key}") for key in ("embedding_length", "feed_forward_length", "block_count", "num_mel_bins")
    ]
    assert sizes == [1280, 5120, 32, 128]
    assert get("clip.audio.attention.head_count") == 20


def test_sizes_by_the_names_of_whisper_go_for_those_of_others() -> None:
    theirs = {
        "d_model": 48,
        "encoder_ffn_dim": 72,
        "encoder_layers": 5,
        "encoder_attention_heads": 3,
        "num_mel_bins": 80,
    }
    get = said("voxtral", lambda c: c.update(audio_config={"model_type": "voxtral_encoder", **theirs}))
    keys = ("embedding_length", "feed_forward_length", "block_count", "attention.head_count", "num_mel_bins")
    assert [get(f"clip.audio.{key}") for key in keys] == list(theirs.values())


def test_places_of_sound_are_sines_and_cosines() -> None:
    table = toys.built(TOYS["qwen3asr"]).tensors["a.position_embd.weight"]
    width = table.shape[1]
    first, second = table.read(0, 2)
    assert first.tolist() == [0.0] * (width // 2) + [1.0] * (width // 2)
    pace = np.exp(-np.log(1e4) / (width // 2 - 1) * np.arange(width // 2))
    assert np.allclose(second, [*np.sin(pace), *np.cos(pace)], atol=1e-6)


def test_ultravox_without_a_norm_in_the_middle_is_refused() -> None:
    with pytest.raises(BadInput, match=r"has no tensor 'multi_modal_projector.ln_mid.weight'"):
        toys.built(TOYS["ultravox"], tensors=lambda t: t.pop("multi_modal_projector.ln_mid.weight"))


def test_a_projection_of_glm_asr_that_is_not_used_is_left_out() -> None:
    model = toys.built(TOYS["glmasr"], tensors=lambda t: t.update({"audio_encoder.proj.weight": [64, 32]}))
    assert model.left_out["audio_encoder.proj.weight"] == "not used, the projection is another"


def test_inner_layers_that_do_not_fit_the_projection_are_refused() -> None:
    with pytest.raises(BadInput, match=r"'encoder_hidden_size' is 64, but 2 layers beside the last make 96 features"):
        said("granite-speech-plus", lambda c: c["encoder_config"].update(cat_hidden_layers=[0, 1]))


def test_pictures_merged_once_have_no_merger_between_layers() -> None:
    side = TOYS["minicpmv4_6"]["side"]
    once = {**side, "preprocessor_config.json": {**side["preprocessor_config.json"], "downsample_mode": "4x"}}
    model = toys.built({**TOYS["minicpmv4_6"], "side": once})
    assert model.metadata.get("clip.vision.projector.scale_factor") == 2
    assert not [name for name in model.tensors if "vit_merger" in name]
    other = {**side, "preprocessor_config.json": {**side["preprocessor_config.json"], "downsample_mode": "2x"}}
    with pytest.raises(BadInput, match="'downsample_mode' is '2x'"):
        toys.built({**TOYS["minicpmv4_6"], "side": other})


def test_statistics_of_deepseek_are_halves_where_no_file_says_others() -> None:
    side = {"preprocessor_config.json": {"image_mean": [0.25] * 3}}
    get = toys.built({**TOYS["deepseek4-vision"], "side": side}).metadata.get
    assert list(get("clip.vision.image_mean")) == [0.25] * 3
    assert list(get("clip.vision.image_std")) == [0.5] * 3


def test_omni_without_an_image_processor_asks_for_it() -> None:
    with pytest.raises(InputMissing, match=r"neither preprocessor_config\.json nor processor_config\.json"):
        toys.built({**TOYS["qwen3omni"], "side": {}})


@pytest.mark.parametrize("name", ["ultravox", "granite-speech-plus", "lfm2-audio", "meralion2"])
def test_without_its_section_there_is_nothing_to_write(name: str) -> None:
    def change(c: dict[str, Any]) -> None:
        for key in ("audio_config", "encoder_config", "encoder", "speech_config"):
            c.pop(key, None)

    with pytest.raises(BadInput, match="so there is no projector to write"):
        said(name, change)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("ultravox", lambda c: c.update(projector_act="gelu"), "'projector_act' is 'gelu'"),
        ("ultravox", lambda c: c.update(stack_factor=0), "0 frames of sound are to become one"),
        ("glmasr", lambda c: c.pop("merge_factor"), "None frames of sound are to become one"),
        ("voxtral", lambda c: c["audio_config"].update(activation_function="relu"), "'activation_function' is 'relu'"),
        ("voxtral", lambda c: c["audio_config"].update(scale_embedding=True), "'scale_embedding' is True"),
        (
            "qwen3omni",
            lambda c: c["thinker_config"]["audio_config"].update(scale_embedding=True),
            "'scale_embedding' is True",
        ),
        ("qwen25omni", lambda c: c["thinker_config"]["vision_config"].update(fullatt_block_indexes=[]), "is \\[\\]"),
        ("granite-speech-plus", lambda c: c["encoder_config"].update(dim_head=8), "'dim_head' is 8"),
        ("lfm2-audio", lambda c: c["encoder"].update(subsampling="striding"), "'subsampling' is 'striding'"),
        ("dots3note-mm", lambda c: c["vision_config"].pop("adapter_type"), "'adapter_type' is None"),
        ("dots3note-mm", lambda c: c["vision_config"].update(pyramid_num_routed=[-1, 2, 2]), "a block has 4 experts"),
        ("dots3note-mm", lambda c: c["audio_config"].update(chunk_seconds=30), "'chunk_seconds' is 30"),
        ("dots3note-mm", lambda c: c["audio_config"]["rope_parameters"].update(rope_theta=5.0), "'rope_theta' is 5.0"),
        ("bailingmoe3-vl", lambda c: c["vision_config"].pop("disable_merger_proj"), "'disable_merger_proj' is None"),
        ("bailingmoe3-vl", lambda c: c["vision_config"].pop("out_hidden_size"), "'out_hidden_size' is missing"),
        ("deepseek4-vision", lambda c: c.update(vision_max_n_token=256), "'vision_max_n_token' is 256"),
        ("deepseek4-vision", lambda c: c.update(vision_n_layers=0), "no 'vision_n_layers' above 0"),
        ("deepseek4-vision", lambda c: c.update(vision_rope_theta=5.0), "'rope_theta' is 5.0"),
        ("glm5next", lambda c: c["vision_config"].update(hidden_act="relu"), "'hidden_act' is 'relu'"),
    ],
)
def test_what_runtimes_do_not_compute_is_refused_by_key_and_value(name: str, change: Change, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        said(name, change)


def test_pocket_tts_counts_its_layers_by_their_norms() -> None:
    with pytest.raises(BadInput, match=r"has no tensor 'mimi.encoder_transformer.transformer.layers.0.norm1.weight'"):
        toys.built(
            TOYS["pockettts"], tensors=lambda t: t.pop("mimi.encoder_transformer.transformer.layers.0.norm1.weight")
        )


def test_qwen_tts_without_what_makes_sound_asks_for_it() -> None:
    def without(tensors: dict[str, list[int]]) -> None:
        for name in [each for each in tensors if each.startswith("speech_tokenizer.")]:
            del tensors[name]

    with pytest.raises(InputMissing, match=r"toy/speech_tokenizer/model\.safetensors is missing"):
        toys.built(TOYS["qwen3tts"], tensors=without)


def test_another_number_of_codes_is_refused() -> None:
    with pytest.raises(BadInput, match="there are 14 codes behind the first, runtimes compute 15"):
        toys.built(TOYS["qwen3tts"], tensors=lambda t: t.pop("talker.code_predictor.lm_head.14.weight"))


def test_tensors_of_the_speech_tokenizer_are_read_with_those_of_its_model(tmp_path: Path) -> None:
    (tmp_path / "speech_tokenizer").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_tts"}))
    for place in ("model.safetensors", "speech_tokenizer/model.safetensors"):
        write_safetensors(tmp_path / place, {"decoder.w": ("F32", np.ones((2, 2), np.float32))})
    found = open_checkpoint(tmp_path)
    assert list(found.tensors) == ["decoder.w", "speech_tokenizer.decoder.w"]
    assert [file.name for file in found.inputs] == ["model.safetensors", "speech_tokenizer/model.safetensors"]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert list(open_checkpoint(tmp_path).tensors) == ["decoder.w"]


def test_angles_of_places_of_sound_have_the_bits_of_the_reference() -> None:
    """Where torch's exponential is not rounded to the nearest: frequency -> what it is."""
    odd = {
        32: 0.6305028200149536, 280: 0.01767100766301155, 348: 0.006631264928728342, 496: 0.0007855045842006803,
        526: 0.0005097478278912604, 540: 0.000416599097661674,
    }  # fmt: skip
    (rows,) = positions().make([], Config({"hidden_size": 1280}, {}, {}))
    angles = np.float32(1499) * np.float32([*odd.values()])
    assert np.array_equal(rows.read(1499, 1500)[0, [*odd]], sine(angles))
