"""Projector files: keys, tensors and types are those of the reference converter, and what runtimes cannot compute is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import toys

from streamconv.errors import BadInput, InputMissing
from streamconv.quant.converter_types import converter_types
from streamconv.quant.filetypes import FILE_TYPES
from streamconv.quant.mix_facts import TensorFacts

TOYS = toys.stored(toys.PROJECTORS)
_LINE_END = "v.token_embd.img_break"


def types(model: Any, file_type: str) -> dict[str, str]:
    """GGUF name -> type in a file of ``file_type``."""
    facts = [TensorFacts(name, rows.shape, rows.dtype) for name, rows in model.tensors.items()]
    return {c.name: c.type.name for c in converter_types(facts, FILE_TYPES[file_type], model.forced_types)}


@pytest.mark.parametrize("name", TOYS)
def test_a_projector_has_the_keys_tensors_and_types_of_the_reference(name: str) -> None:
    toy = TOYS[name]
    model = toys.built(toy)
    found, made = toys.keys(model), toys.shapes(model)
    assert found == toy["keys"]
    wanted = {each: list(shape) for each, shape in toys.unpacked(toy["made"])}
    if _LINE_END not in wanted:  # the reference drops it by mistake
        made.pop(_LINE_END, None)
    assert made == wanted
    halves = [each for each, kind in types(model, "F16").items() if kind == "F16"]
    assert sorted(halves) == sorted(each for each, _ in toys.unpacked(toy["f16"]))
    assert toys.digest(model) == toy["digest"]


@pytest.mark.parametrize("file_type", ["F32", "BF16", "Q8_0"])
def test_patches_are_f32_in_files_of_other_types(file_type: str) -> None:
    found = types(toys.built(TOYS["qwen2vl"]), file_type)
    assert found["v.patch_embd.weight"] == found["v.patch_embd.weight.1"] == "F32"
    assert found["v.blk.0.attn_q.weight"] == file_type


def test_the_embedding_of_a_lines_end_is_part_of_pixtral() -> None:
    model = toys.built(TOYS["pixtral"])
    table = toys.Named("language_model.model.embed_tokens.weight", (512, 64))
    assert np.array_equal(model.tensors[_LINE_END].read(0, 1), table.read(7, 8))
    assert types(model, "F16")[_LINE_END] == "F32"


def test_without_the_token_of_a_lines_end_the_tokenizer_is_asked_for() -> None:
    toy = {**TOYS["pixtral"], "side": {**TOYS["pixtral"]["side"], "tokenizer_config.json": {}}}
    with pytest.raises(InputMissing, match=r"no tokenizer file has the token \[IMG_BREAK\]"):
        toys.built(toy)


def test_llava_with_a_tower_of_clip_is_refused_by_its_name() -> None:
    with pytest.raises(BadInput, match=r"model_type is 'clip_vision_model': of Llava only projectors of 'pixtral'"):
        toys.built(TOYS["pixtral"], config=lambda c: c["vision_config"].update(model_type="clip_vision_model"))


def test_the_architecture_of_the_tower_goes_before_that_around_it() -> None:
    model = toys.built(TOYS["internvl"], config=lambda c: c.update(architectures=["SomethingElse"]))
    assert model.metadata.get("clip.projector_type") == "internvl"


@pytest.mark.parametrize(
    ("name", "said", "told"),
    [
        ("qwen3vl", {"deepstack_visual_indexes": [5]}, r"'deepstack_visual_indexes' is \[5\]"),
        ("qwen3vl", {"deepstack_visual_indexes": []}, "has no layer in 'deepstack_visual_indexes'"),
        ("qwen25vl", {"fullatt_block_indexes": [0, 3]}, r"'fullatt_block_indexes' is \[0, 3\]"),
        ("pixtral", {"hidden_act": "relu"}, "'hidden_act' is 'relu'"),
        ("pixtral", {"rope_parameters": {"rope_theta": 5.0}}, "'rope_theta' is 5.0"),
        ("llama4", {"pixel_shuffle_ratio": 0}, "'pixel_shuffle_ratio' is 0"),
        ("llama4", {"patch_size": 0}, "patch_size is 0"),
        ("gemma4-unified", {"model_patch_size": 5}, "a patch is 5 pixels a side"),
    ],
)
def test_what_runtimes_do_not_compute_is_refused_by_key_and_value(name: str, said: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        toys.built(TOYS[name], config=lambda c: c["vision_config"].update(said))


def test_patches_of_more_frames_than_two_are_refused() -> None:
    with pytest.raises(BadInput, match="has patches of 3 frames, runtimes compute with 2"):
        toys.built(TOYS["qwen2vl"], tensors=lambda t: t.update({"visual.patch_embed.proj.weight": [32, 3, 3, 14, 14]}))


def test_sizes_that_a_tower_does_not_say_are_those_of_its_class() -> None:
    model = toys.built(TOYS["llama4"], config=lambda c: c.update(vision_config={"model_type": "llama4_vision_model"}))
    assert model.metadata.get("clip.vision.block_count") == 34
    assert model.metadata.get("clip.vision.image_size") == 448


def test_processor_config_goes_before_preprocessor_config() -> None:
    side = {**TOYS["glm4v"]["side"], "processor_config.json": {"image_processor": {"image_mean": [0.5, 0.25, 0.0]}}}
    model = toys.built({**TOYS["glm4v"], "side": side})
    assert list(model.metadata.get("clip.vision.image_mean")) == [0.5, 0.25, 0.0]


@pytest.mark.parametrize(("said", "row"), [(12, 12), (-1, 7)])
def test_mistrals_own_layout_says_the_token_of_a_lines_end_or_leaves_it_to_the_tokenizer(said: int, row: int) -> None:
    model = toys.built(TOYS["mistral-format"], config=lambda c: c["vision_encoder"].update(image_break_token_id=said))
    table = toys.Named("tok_embeddings.weight", (512, 64))
    assert np.array_equal(model.tensors[_LINE_END].read(0, 1), table.read(row, row + 1))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (
            "deepseek-ocr",
            lambda c: c["vision_config"].update(width=5),
            "'width' of the vision section has no 'sam_vit_b'",
        ),
        ("dotsocr", lambda c: c["vision_config"].update(temporal_patch_size=2), "'temporal_patch_size' is 2"),
        (
            "granite4-vision",
            lambda c: c.update(spatial_target_layers=[1, 4]),
            "a projector is of layer 4, not one of 4",
        ),
        (
            "granite4-vision",
            lambda c: c.update(spatial_target_layers=[1]),
            "does not say which layer .*spatial_projectors.1",
        ),
        ("granite4-vision", lambda c: c.update(downsample_rate="2"), "'downsample_rate' is '2'"),
        ("janus", lambda c: c["vision_config"].update(use_qk_norm=True), "'use_qk_norm' is True"),
        ("kimi-k25", lambda c: c["vision_config"].update(merge_kernel_size=[2, 1]), r"'merge_kernel_size' is \[2, 1\]"),
        ("kimi-vl", lambda c: c["vision_config"].update(merge_kernel_size=[3, 3]), r"'merge_kernel_size' is \[3, 3\]"),
        ("lfm2-vl", lambda c: c.update(vision_feature_layer=2), "'vision_feature_layer' is 2"),
        ("minimax-m3", lambda c: c["vision_config"].update(num_attention_heads=4), "heads are 40 wide"),
        ("muse-glimmer", lambda c: c["vision_config"].update(patch_temporal=3), "not 3 frames of 3 x 14 x 14"),
        ("nemotron-nano-vl", lambda c: c.update(sound_config={"hidden_size": 8}), "'intermediate_size' is missing"),
        ("nemotron-nano-vl", lambda c: c.update(force_image_size=3), "smaller than a patch"),
        ("minimax-m3", lambda c: c["vision_config"].update(rope_parameters={"rope_theta": 5.0}), "'rope_theta' is 5.0"),
        ("kimi-k25", lambda c: c["vision_config"].update(mm_projector_type="mlp"), "'mm_projector_type' is 'mlp'"),
        ("phi4v", lambda c: c.update(mm_projector_type="linear"), "'mm_projector_type' is 'linear'"),
        ("phi4v", lambda c: c["vision_config"].update(num_hidden_layers=1), "has 1 layers"),
        ("qwen3-stepvl", lambda c: c["vision_config"].update(layers=46), r"\(2, 728, 1536, 46\), runtimes compute"),
        (
            "youtuvl",
            lambda c: c["vision_config"].update(fullatt_block_indexes=[9]),
            r"'fullatt_block_indexes' is \[9\]",
        ),
    ],
)
def test_what_no_runtime_computes_of_other_towers_is_refused(name: str, change: Any, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        toys.built(TOYS[name], config=change)


def test_layers_behind_the_features_that_are_taken_are_not_counted() -> None:
    model = toys.built(TOYS["lfm2-vl"], config=lambda c: c.update(vision_feature_layer=-2))
    assert model.metadata.get("clip.vision.block_count") == 2


def test_the_table_of_positions_is_scaled_to_the_images() -> None:
    model = toys.built(TOYS["nemotron-nano-vl"], config=lambda c: c.update(force_image_size=16))
    assert model.tensors["v.position_embd.weight"].shape == (1, 16, 1280)


def test_class_defaults_fill_what_the_tower_does_not_say() -> None:
    def short(config: dict[str, Any]) -> None:
        config["vision_config"].pop("num_key_value_heads")
        config["vision_config"].pop("window_size")

    model = toys.built(TOYS["exaone4_5"], config=short)
    assert model.metadata.get("clip.vision.attention.head_count_kv") == 8
    assert model.metadata.get("clip.vision.window_size") == 112


_RESAMPLER = {
    "name": "minicpmv",
    "projector": True,
    "config": {
        "architectures": ["MiniCPMV"],
        "hidden_size": 64,
        "version": 2.6,
        "query_num": 4,
        "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1},
    },
    "side": {},
    "tensors": toys.packed(
        {
            "llm.lm_head.weight": [512, 64],
            "resampler.attn.in_proj_bias": [192],
            "resampler.attn.in_proj_weight": [192, 64],
            "resampler.attn.out_proj.weight": [64, 64],
            "resampler.kv_proj.weight": [64, 32],
            "resampler.proj": [64, 64],
            "resampler.query": [4, 64],
            "vpm.embeddings.patch_embedding.weight": [32, 3, 14, 14],
            "vpm.embeddings.position_embedding.weight": [16, 32],
            "vpm.encoder.layers.0.mlp.fc1.weight": [64, 32],
            "vpm.encoder.layers.0.mlp.fc2.weight": [32, 64],
            "vpm.encoder.layers.0.self_attn.out_proj.weight": [32, 32],
        }
    ),
}


def test_the_resampler_of_minicpm_v_is_written_as_the_legacy_scripts_do() -> None:
    model = toys.built(_RESAMPLER)
    tensors = model.tensors
    positions = tensors["resampler.pos_embed_k"]
    assert positions.shape == (4900, 64)
    row = positions.read(70 * 2 + 3, 70 * 2 + 4)[0]  # row 2, column 3
    assert row[0] == np.sin(np.float32(3))
    assert row[32] == np.sin(np.float32(2))
    assert row[48] == np.cos(np.float32(2))
    turned = toys.Named("resampler.proj", (64, 64)).read(0, 64).T
    assert np.array_equal(tensors["resampler.proj.weight"].read(0, 64), turned)
    assert [tensors[f"resampler.attn.{part}.weight"].shape for part in "qkv"] == [(64, 64)] * 3
    assert tensors["v.blk.0.ffn_down.weight"].shape == (64, 32)
    keys = dict(model.metadata.items())
    assert "general.type" not in keys
    assert (keys["clip.vision.image_size"].value, keys["clip.minicpmv_version"].value) == (448, 3)
    assert model.metadata.get("clip.vision.image_mean") == [0.5, 0.5, 0.5]
    kinds = [types(model, file_type) for file_type in ("F16", "F32")]
    assert [kind["v.position_embd.weight"] for kind in kinds] == ["F16", "F32"]
    assert [kind["v.patch_embd.weight"] for kind in kinds] == ["F16", "F16"]
    assert [kind["resampler.query"] for kind in kinds] == ["F32", "F32"]


@pytest.mark.parametrize("version", [None, 2.5, 4.0, "4.5"])
def test_other_versions_of_minicpm_v_are_refused_by_name(version: Any) -> None:
    with pytest.raises(BadInput, match=r"MiniCPMV of .*only the projector of MiniCPM-V 2\.6"):
        toys.built(_RESAMPLER, config=lambda c: c.update(version=version))


def test_ears_beside_the_tower_have_a_type_of_their_own() -> None:
    sound = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_mel_bins": 80,
        "subsampling_factor": 8, "conv_kernel_size": 9,
    }  # fmt: skip
    layer = "sound_encoder.encoder.layers.0"
    heard = {
        "sound_encoder.encoder.subsampling.layers.2.weight": [8, 1, 3, 3],
        "sound_encoder.encoder.subsampling.layers.2.bias": [8],
        "sound_encoder.encoder.subsampling.linear.weight": [32, 64],
        "sound_encoder.encoder.feature_extractor.featurizer.fb": [1, 80, 257],
        f"{layer}.conv.depthwise_conv.weight": [32, 1, 9],
        f"{layer}.conv.pointwise_conv1.weight": [64, 32, 1],
        f"{layer}.conv.pointwise_conv1.bias": [64],
        f"{layer}.conv.norm.weight": [32],
        f"{layer}.conv.norm.running_mean": [32],
        f"{layer}.conv.norm.num_batches_tracked": [1],
        f"{layer}.self_attn.bias_u": [2, 16],
        f"{layer}.self_attn.q_proj.weight": [32, 32],
        "sound_projection.norm.weight": [32],
        "sound_projection.linear1.weight": [64, 32],
    }
    model = toys.built(
        TOYS["nemotron-nano-vl"], config=lambda c: c.update(sound_config=sound), tensors=lambda t: t.update(heard)
    )
    assert model.metadata.get("clip.projector_type") is None
    assert model.metadata.get("clip.audio.projector_type") == "parakeet"
    assert model.metadata.get("clip.vision.projector_type") == "nemotron_v2_vl"
    assert model.metadata.get("clip.audio.subsampling_factor") == 8
    made, kinds = toys.shapes(model), types(model, "F16")
    assert {name: (shape, kinds[name]) for name, shape in made.items() if name.startswith(("a.", "mm.a."))} == {
        "a.conv1d.2.weight": ([8, 1, 3, 3], "F32"),
        "a.conv1d.2.bias": ([1, 8, 1, 1], "F32"),
        "a.pre_encode.out.weight": ([32, 64], "F16"),
        "a.mel_filters": ([1, 80, 257], "F32"),
        "a.blk.0.conv_dw.weight": ([1, 1, 32, 9], "F32"),
        "a.blk.0.conv_pw1.weight": ([64, 32], "F32"),
        "a.blk.0.conv_pw1.bias": ([1, 64, 1, 1], "F32"),
        "a.blk.0.conv_norm.weight": ([32], "F32"),
        "a.blk.0.conv_norm_mean": ([32], "F32"),
        "a.blk.0.pos_bias_u": ([2, 16], "F32"),
        "a.blk.0.attn_q.weight": ([32, 32], "F16"),
        "mm.a.norm_pre.weight": ([32], "F32"),
        "mm.a.mlp.1.weight": ([64, 32], "F16"),
    }


@pytest.mark.parametrize("name", ["lfm2-vl", "muse-glimmer"])
def test_another_activation_of_the_projection_is_told(name: str) -> None:
    model = toys.built(TOYS[name], config=lambda c: c.update(projector_hidden_act="relu"))
    assert any("'projector_hidden_act' is 'relu'" in each for each in model.warnings)


def test_what_runtimes_do_not_know_of_youtu_vl_is_left_out() -> None:
    name = "siglip2.vision_model.head.probe"
    model = toys.built(TOYS["youtuvl"], tensors=lambda t: t.update({name: [1, 1, 32]}))
    assert name in model.left_out


_QWEN3 = "thinker_config.audio_config"


@pytest.mark.parametrize(
    ("name", "key", "value", "known"),
    [
        ("deepseek-ocr", "vision_config.width.sam_vit_b.global_attn_indexes", [1, 3], [2, 5, 8, 11]),
        ("deepseek-ocr", "tile_tag", "1D", "2D"), ("deepseek-ocr", "global_view_pos", "tail", "head"),
        ("deepseek-ocr", "projector_config.projector_type", "mlp_gelu", "linear"),
        ("gemma4-ple", "audio_config.attention_logit_cap", 30.0, 50.0), ("gemma4-ple", "audio_config.attention_chunk_size", 8, 12),
        ("gemma4-ple", "audio_config.residual_weight", 1.0, 0.5), ("gemma4-ple", "audio_config.hidden_act", "gelu", "silu"),
        ("gemma4-ple", "vision_config.pooling_kernel_size", 4, 3), ("gemma4-unified", "vision_config.pooling_kernel_size", 4, 3),
        ("qwen25vl", "vision_config.window_size", 64, 112), ("qwen25omni", "thinker_config.vision_config.window_size", 64, 112),
        ("qwen3omni", f"{_QWEN3}.n_window", 25, 50), ("qwen3asr", f"{_QWEN3}.n_window_infer", 400, 800),
        ("internvl", "ps_version", "v1", "v2"), ("internvl", "select_layer", -2, -1), ("interns1", "vision_feature_layer", -2, -1),
        ("hunyuan-vl", "vision_config.cat_extra_token", 0, 1), ("granite-speech-plus", "projector_config.num_hidden_layers", 4, 2),
        ("minicpmv4_6", "drop_vision_last_layer", True, False), ("minicpmv4_6", "downsample_mode", "4x", "16x"),
        ("minicpmv4_6", "vision_config.window_kernel_size", [4, 4], [2, 2]), ("gemma3-vision", "mm_tokens_per_image", 99, 16),
        ("paddleocr", "vision_config.layer_norm_eps", 1e-5, 1e-6),
        ("muse-glimmer", "vision_config.layer_types", ["full_attention"] * 2, ["window_attention"] * 2),
    ],
)  # fmt: skip
def test_what_runtimes_compute_whatever_a_section_says_is_told(name: str, key: str, value: Any, known: Any) -> None:
    *sections, last = key.split(".")

    def stated(said: Any) -> list[str]:
        def change(c: dict[str, Any]) -> None:
            for each in sections:
                c = c[each]
            c[last] = said

        # what is told by the name that the section or the whole file has
        notes = toys.built(TOYS[name], change).warnings
        return [note for note in notes if f"{key!r} is " in note or f"{last!r} is " in note]

    assert stated(known) == []
    (note,) = stated(value)
    assert repr(value) in note


#: what is published of towers of CLIP and of SigLIP
_CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
_SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "image_size": 980, "intermediate_size": 4304,
    "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14,
}  # fmt: skip


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        ({"architectures": ["MiniCPMV"]}, "a MiniCPMV of a version that it does not state"),
        ({"architectures": ["MiniCPMV"], "version": "2.5", "query_num": 96}, "a MiniCPMV of version 2.5"),
        ({"architectures": ["MiniCPMV"], "version": 4.0, "query_num": 64}, "a MiniCPMV of version 4.0"),
        ({"architectures": ["MiniCPMV"], "version": 4.5, "batch_3d_resampler": True}, "a MiniCPMV of version 4.5"),
        ({"architectures": ["MiniCPMO"], "version": "2.6", "audio_config": {}}, "a MiniCPMO of version 2.6"),
        ({"architectures": ["LlavaForConditionalGeneration"], "vision_config": _CLIP}, "model_type is 'clip_vision_model'"),
        ({"architectures": ["LlavaForConditionalGeneration"], "vision_config": _SIGLIP}, "model_type is 'siglip_vision_model'"),
        ({"architectures": ["LlavaNextForConditionalGeneration"], "vision_config": _CLIP}, "'LlavaNextFor.*' has no projector"),
        (
            {"architectures": ["LlavaLlamaForCausalLM"], "mm_vision_tower": "openai/clip-vit-large-patch14-336"},
            "'LlavaLlamaForCausalLM' has no projector",
        ),
    ],
)  # fmt: skip
def test_projectors_of_legacy_scripts_are_refused_by_name(stated: dict[str, Any], why: str) -> None:
    toy = {
        "config": {"vision_config": _SIGLIP, **stated},
        "tensors": [["vpm.a.weight", [], [2, 2]]],
        "side": {},
        "projector": True,
    }
    with pytest.raises(BadInput, match=why) as refused:
        toys.built(toy)
    assert "llama.cpp's legacy scripts" in str(refused.value.hint)
