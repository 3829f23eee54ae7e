"""What families of one architecture do beside renaming, on models that are names and shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from safetensors.numpy import save_file
from tokenizer_cases import read, write_json

from streamconv.errors import BadInput, InputMissing
from streamconv.kit import ACTIVATIONS
from streamconv.models import build
from streamconv.models.families import bitnet, pockettts, qwen3tts
from streamconv.models.tokenizers import BERT
from streamconv.rows import Floats, Rows, matrix_shape
from streamconv.sources import open_checkpoint
from streamconv.sources.checkpoint import Checkpoint
from streamconv.sources.implied_config import implied_config

TOYS = toys.stored()


def values(model: Any, name: str) -> Any:
    rows = model.tensors[name]
    return rows.read(0, int(np.prod(rows.shape[:-1])))


def source(name: str, *shape: int) -> Any:
    return toys.Named(name, shape).read(0, int(np.prod(shape[:-1])))


class Packed(Rows):
    """Three values, as a decoder of BitNet's packed weights gives them."""

    encoding = "bitnet (ternary)"

    def __init__(self) -> None:
        self.shape = (2, 4)
        self.dtype = "F32"

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        out[...] = np.array([[0.5, -0.5, 0, 0], [0, 0.5, 0, 0]], np.float32)[start:stop]


def test_weights_of_bitnet_become_three_values_around_their_mean_magnitude() -> None:
    rows = toys.Named("x", (8, 16))
    made = bitnet.ternary(rows, None).read(0, 8)  # type: ignore[arg-type]
    scale = np.abs(rows.read(0, 8).astype(np.float64)).mean()
    assert np.unique(np.round(made / scale, 5)).tolist() == [-1, 0, 1]
    assert (np.round(made / scale) == np.clip(np.rint(rows.read(0, 8) / scale), -1, 1)).all()


def test_weights_of_bitnet_that_are_packed_are_not_rounded_again() -> None:
    """The reference takes their mean once more and makes them smaller."""
    packed = Packed()
    assert bitnet.ternary(packed, None) is packed  # type: ignore[arg-type]


def test_norms_of_the_published_bitnet_have_other_names() -> None:
    """The reference does not know them."""

    def renamed(tensors: dict[str, list[int]]) -> None:
        for name in list(tensors):
            new = name.replace("inner_attn_ln", "attn_sub_norm").replace("ffn_layernorm", "ffn_sub_norm")
            tensors[new] = tensors.pop(name)

    assert (
        toys.shapes(toys.built(TOYS["bitnet"], tensors=renamed)).keys()
        == toys.shapes(toys.built(TOYS["bitnet"])).keys()
    )


def test_activations_of_the_published_bitnet_are_refused() -> None:
    with pytest.raises(BadInput, match="'hidden_act' is 'relu2'"):
        toys.built(TOYS["bitnet"], lambda c: c.update(hidden_act="relu2"))


def test_heads_of_chameleon_share_the_norm_of_the_first() -> None:
    model = toys.built(TOYS["chameleon"])
    first = source("model.layers.0.self_attn.q_norm.weight", 4, 16)[0]
    assert (values(model, "blk.0.attn_q_norm.weight") == first.reshape(2, 8).T.reshape(-1)).all()


def test_heads_of_chameleon_have_norms_of_their_own_where_there_are_fewer_keys() -> None:
    """The reference stops at such models."""

    def fewer(tensors: dict[str, list[int]]) -> None:
        for name, shape in tensors.items():
            if ".k_norm." in name or ".k_proj." in name or ".v_proj." in name:
                tensors[name] = [shape[0] // 2, *shape[1:]]

    model = toys.built(TOYS["chameleon"], lambda c: c.update(num_key_value_heads=2), fewer)
    own = source("model.layers.0.self_attn.k_norm.weight", 2, 16)
    assert (values(model, "blk.0.attn_k_norm.weight") == own.reshape(2, 2, 8).transpose(0, 2, 1).reshape(2, 16)).all()


def test_an_output_of_jais_is_made_of_the_embedding_where_they_are_tied() -> None:
    """The reference writes none, and its loader asks for one."""
    model = toys.built(TOYS["jais"], tensors=lambda t: t.pop("lm_head.weight"))
    table = source("transformer.wte.weight", 512, 64)
    assert (values(model, "token_embd.weight") == table * np.float32(14.6)).all()
    assert (values(model, "output.weight") == table * np.float32(0.22)).all()


def test_scales_of_jais_have_two_spellings() -> None:
    def anew(c: dict[str, Any]) -> None:
        c["mup_embeddings_scale"], c["mup_output_alpha"], c["mup_width_scale"] = c.pop("embeddings_scale"), 2.0, 0.11
        del c["width_scale"]

    assert toys.digest(toys.built(TOYS["jais"], anew)) == TOYS["jais"]["digest"]


def test_jais_without_scaled_attention_is_refused() -> None:
    with pytest.raises(BadInput, match="mup_scale_qk_dot_by_d"):
        toys.built(TOYS["jais"], lambda c: c.update(mup_scale_qk_dot_by_d=False))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda c: c["block_configs"][0]["ffn"].update(replace_with_linear=True),
            "'replace_with_linear' is True in layer 0",
        ),
        (lambda c: c["block_configs"][0]["attention"].update(window_length=64), "'window_length' is 64 in layer 0"),
        (lambda c: c["block_configs"].pop(), "not a list of 3 layers"),
        (lambda c: c["block_configs"][1].pop("ffn"), "no 'ffn' of layer 1"),
        (lambda c: c["block_configs"][1]["ffn"].update(ffn_mult="x"), "ffn_mult 'x'"),
    ],
)
def test_layers_of_deci_that_no_runtime_computes_are_refused(change: Callable[[Any], Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        toys.built(TOYS["deci"], change)


def test_layers_of_deci_without_attention_and_network_have_no_heads_and_no_width() -> None:
    def without(c: dict[str, Any]) -> None:
        c["block_configs"][2] = {"attention": {"n_heads_in_group": None}, "ffn": {"ffn_mult": None}}

    def cut(tensors: dict[str, list[int]]) -> None:
        for name in [name for name in tensors if name.startswith("model.layers.2.")]:
            del tensors[name]

    found = toys.keys(toys.built(TOYS["deci"], without, cut))
    assert [found[f"deci.{key}"] for key in ("attention.head_count", "attention.head_count_kv", "feed_forward_length")] == [
        [4, 4, 0], [2, 0, 0], [256, 256, 0]
    ]  # fmt: skip


@pytest.mark.parametrize(("multiplier", "width"), [(0.5, 32), (1.4, 96), (1.73, 128), (2.24, 160), (0.01, 32)])
def test_networks_of_openelm_are_as_wide_as_the_nearest_multiple_that_takes_no_tenth_away(
    multiplier: float, width: int
) -> None:
    def wide(tensors: dict[str, list[int]]) -> None:
        tensors["transformer.layers.0.ffn.proj_1.weight"] = [2 * width, 64]
        tensors["transformer.layers.0.ffn.proj_2.weight"] = [64, width]

    model = toys.built(TOYS["openelm"], lambda c: c["ffn_multipliers"].__setitem__(0, multiplier), wide)
    assert toys.keys(model)["openelm.feed_forward_length"][0] == width
    assert model.tensors["blk.0.ffn_gate.weight"].shape[0] == width


def test_numbers_of_openelm_are_one_for_every_layer() -> None:
    with pytest.raises(BadInput, match="'num_kv_heads' is not a list of 3 numbers"):
        toys.built(TOYS["openelm"], lambda c: c["num_kv_heads"].pop())


def test_weights_for_images_are_part_of_cogvlm() -> None:
    """The reference leaves them out, and its file does not load."""
    model = toys.built(TOYS["cogvlm"])
    assert {"blk.0.vis_attn_qkv.weight", "blk.1.vis_up.weight"} <= model.tensors.keys()
    with pytest.raises(BadInput, match="num_multi_query_heads"):
        toys.built(TOYS["cogvlm"], lambda c: c.update(num_multi_query_heads=2))


def test_the_outer_norm_of_sarashina_is_left_out() -> None:
    assert toys.built(TOYS["sarashina2vl"]).left_out["norm.weight"] == "a norm of the whole that nothing uses"


def test_windows_of_lfm_2_are_known_for_its_sounds_alone() -> None:
    kinds = ["conv", "sliding_attention", "conv"]
    assert toys.keys(toys.built(TOYS["lfm25-audio-tokenizer"]))["lfm2.attention.head_count_kv"] == [0, 2, 0]
    with pytest.raises(BadInput, match="'layer_types' is"):
        toys.built(TOYS["lfm2-b"], lambda c: c.update(layer_types=kinds))
    with pytest.raises(BadInput, match="'layer_types' is"):
        toys.built(TOYS["lfm25-audio-tokenizer"], lambda c: c.update(layer_types=["conv", "full_attention", "conv"]))


def test_one_class_of_embedders_of_lfm_2_looks_both_ways() -> None:
    both = toys.built(TOYS["lfm2-b"], lambda c: c.update(architectures=["Lfm2BidirectionalModel"]))
    assert toys.keys(both)["lfm2.attention.causal"] is False
    assert "lfm2.attention.causal" not in toys.keys(toys.built(TOYS["lfm2-b"]))


def test_pieces_of_a_unigram_model_are_words_to_bert(tmp_path: Path) -> None:
    pieces = [["<s>", 0.0], ["▁the", -1.0], ["##s", -2.0], ["a", -3.0]]
    whole = {
        "added_tokens": [{"id": 0, "content": "<s>", "special": True}],
        "model": {"type": "Unigram", "vocab": pieces},
    }
    write_json(tmp_path, "tokenizer.json", {"normalizer": None, "pre_tokenizer": None, "post_processor": None, **whole})
    write_json(tmp_path, "config.json", {"vocab_size": 5})
    found = read(tmp_path, BERT, "bert-bge").metadata
    assert list(found.get("tokenizer.ggml.tokens")) == ["<s>", "▁▁the", "s", "▁a", "▁[PAD4]"]
    assert list(found.get("tokenizer.ggml.token_type")) == [3, 1, 1, 1, 5]


def pocket_tts(with_voices: bool = True) -> dict[str, Rows]:
    """Tensors of Pocket TTS, of one layer."""
    layer = "flow_lm.transformer.layers.0"
    shapes = {
        "flow_lm.bos_emb": (32,), "flow_lm.conditioner.embed.weight": (5, 128), "flow_lm.input_linear.weight": (128, 32),
        f"{layer}.linear1.weight": (256, 128), f"{layer}.norm1.weight": (128,), f"{layer}.self_attn.in_proj.weight": (384, 128),
        "mimi.decoder.model.0.conv.weight": (8, 1, 7), **({"flow_lm.bos_before_voice": (1, 1, 128)} if with_voices else {}),
    }  # fmt: skip
    return {name: toys.Named(name, shape) for name, shape in sorted(shapes.items())}


@pytest.mark.parametrize("with_voices", [True, False])
def test_vectors_before_voice_and_sound_of_pocket_tts_are_tokens_behind_its_own(with_voices: bool) -> None:
    rows = pocket_tts(with_voices)
    config = implied_config(rows)
    model = build(Checkpoint(Path("toy"), rows, config, ()), replace(pockettts.FAMILY, tokenizer=None))
    n = 7 if with_voices else 6
    assert (config["vocab_size"], config["num_attention_heads"], config["num_hidden_layers"]) == (n, 2, 1)
    made = values(model, "token_embd.weight")
    assert made.shape == (n, 128)
    if with_voices:
        assert (made[5] == source("flow_lm.bos_before_voice", 1, 1, 128)[0]).all()
    sound = source("flow_lm.input_linear.weight", 128, 32) @ source("flow_lm.bos_emb", 32)[0]
    assert np.allclose(made[-1], sound, atol=1e-5)
    third = source("flow_lm.transformer.layers.0.self_attn.in_proj.weight", 384, 128)[128:256]
    assert (values(model, "blk.0.attn_k.weight") == third).all()


def test_a_folder_without_config_json_is_opened_where_its_tensors_say_the_same(tmp_path: Path) -> None:
    rows = {
        name: np.ascontiguousarray(r.read(0, matrix_shape(r.shape)[0]).reshape(r.shape))
        for name, r in pocket_tts().items()
    }
    save_file(rows, tmp_path / "model.safetensors")
    assert open_checkpoint(tmp_path).config["architectures"] == ["PocketTTSModel"]
    save_file(
        {name: array for name, array in rows.items() if name != "flow_lm.bos_emb"}, tmp_path / "model.safetensors"
    )
    with pytest.raises(InputMissing, match=r"no config\.json"):
        open_checkpoint(tmp_path)


def talker(**changes: Any) -> Any:
    """Qwen 3 TTS without layers, of three texts and 1030 codes."""
    shapes = {
        "text_embedding": (3, 8), "codec_embedding": (1030, 4), "norm": (4,), "linear_fc1": (6, 8), "linear_fc2": (4, 6),
    }  # fmt: skip
    rows = {}
    for name, shape in shapes.items():
        at = "text_projection" if name.startswith("linear") else "model"
        rows[f"talker.{at}.{name}.weight"] = toys.Named(name, shape)
        if name.startswith("linear"):
            rows[f"talker.{at}.{name}.bias"] = toys.Named(f"{name}.bias", shape[:1])
    rows["talker.codec_head.weight"] = toys.Named("head", (1030, 4))
    section = {
        "vocab_size": 1030,
        "text_vocab_size": 3,
        "hidden_size": 4,
        "num_attention_heads": 2,
        "num_hidden_layers": 0,
    }
    config = {
        "architectures": ["Qwen3TTSForConditionalGeneration"], "speaker_encoder_config": {},
        "talker_config": {**section, "codec_eos_token_id": 1029, "hidden_act": "silu", **changes},
    }  # fmt: skip
    return build(
        Checkpoint(Path("toy"), dict(sorted(rows.items())), config, ()), replace(qwen3tts.FAMILY, tokenizer=None)
    )


@pytest.mark.parametrize("act", ["silu", "relu", "gelu"])
def test_the_network_between_texts_and_qwen_3_tts_is_folded_into_the_embedding(act: str) -> None:
    made = values(talker(hidden_act=act), "token_embd.weight")
    inner = source("text_embedding", 3, 8).astype(np.float64) @ source("linear_fc1", 6, 8).T + source(
        "linear_fc1.bias", 6
    )
    gelu = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
    inner = {"silu": inner / (1 + np.exp(-inner)), "relu": np.maximum(inner, 0), "gelu": gelu}[act]
    assert np.allclose(made[:3], inner @ source("linear_fc2", 4, 6).T + source("linear_fc2.bias", 4), atol=1e-6)
    assert (made[3:] == source("codec_embedding", 1030, 4)).all()


def test_activations_that_qwen_3_tts_cannot_have_are_refused_or_told() -> None:
    assert any("runtimes compute silu" in warning for warning in talker(hidden_act="relu").warnings)
    with pytest.raises(BadInput, match="'hidden_act' is 'tanh'"):
        talker(hidden_act="tanh")


def test_codes_are_named_by_the_keys_that_have_them_for_ids() -> None:
    names = qwen3tts.code_names(
        {"vocab_size": 6, "codec_bos_id": 1, "codec_language_id": {"english": 2}, "spk_id": {"a": 5}}
    )
    assert names == [
        "<|codec_0|>",
        "<|codec_bos|>",
        "<|codec_language_english|>",
        "<|codec_3|>",
        "<|codec_4|>",
        "<|spk_a|>",
    ]
    with pytest.raises(BadInput, match="'codec_bos_id' has the id 6"):
        qwen3tts.code_names({"vocab_size": 6, "codec_bos_id": 6})


def test_the_activation_of_torch_has_its_bits() -> None:
    """Recorded from torch 2 on AVX-512."""
    x = np.array([-30, -2.5, -0.1, 0, 1e-3, 0.7, 3.25, 60, -200], np.float32)
    recorded = (
        0xAC458B96, 0xBE42326B, 0xBD42918B, 0, 0x3A032336, 0x3EEF7A7E, 0x40483C6A, 0x42700000, 0x80000000,
    )  # fmt: skip
    assert ACTIVATIONS["silu"].call(x.copy()).view(np.uint32).tolist() == [*recorded]
