"""What single families do beside renaming, on models that are names and shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import toys

from streamconv.errors import BadInput

TOYS = toys.stored()


def values(model: Any, name: str) -> Any:
    rows = model.tensors[name]
    return rows.read(0, int(np.prod(rows.shape[:-1])))


def source(name: str, *shape: int) -> Any:
    return toys.Named(name, shape).read(0, int(np.prod(shape[:-1])))


def test_keys_of_latent_attention_are_turned_head_by_head_and_values_are_not() -> None:
    model = toys.built(TOYS["deepseek2"])
    whole = source("model.layers.0.self_attn.kv_b_proj.weight", 128, 32).reshape(4, 32, 32)
    assert (values(model, "blk.0.attn_k_b.weight").reshape(4, 32, 16) == whole[:, :16].transpose(0, 2, 1)).all()
    assert (values(model, "blk.0.attn_v_b.weight").reshape(4, 16, 32) == whole[:, 16:]).all()


def test_blocks_behind_the_last_are_left_out_of_deepseek_v3_and_kept_by_v3_2() -> None:
    assert any(name.startswith("model.layers.3.") for name in toys.built(TOYS["deepseek3"]).left_out)
    assert "blk.3.nextn.eh_proj.weight" in toys.built(TOYS["deepseek32"]).tensors


def test_positions_of_roberta_begin_behind_that_of_padding() -> None:
    """CamemBERT's class does not do so in the reference, and RoBERTa's only where padding has an id."""
    whole = toys.built(TOYS["roberta"], lambda c: c.update(pad_token_id=None, model_type="of no class"))
    assert whole.tensors["position_embd.weight"].shape == (66, 64)
    cut = toys.built(TOYS["roberta"])
    assert (values(cut, "position_embd.weight") == values(whole, "position_embd.weight")[2:]).all()


def test_published_heads_of_modern_bert_are_left_out() -> None:
    """The reference stops at them, and so at the published models."""
    model = toys.built(
        TOYS["modern-bert"], tensors=lambda t: t.update({"decoder.bias": [512], "decoder.weight": [512, 64]})
    )
    assert set(model.left_out) == {"decoder.bias", "decoder.weight"}


def test_modern_bert_has_the_epsilon_that_its_loader_asks_for_under_either_name() -> None:
    """The reference writes the other key where config.json has norm_eps alone."""
    model = toys.built(TOYS["modern-bert"], lambda c: c.pop("layer_norm_eps"))
    assert toys.keys(model)["modern-bert.attention.layer_norm_epsilon"] == pytest.approx(1e-5)


def test_qwen_1_has_the_epsilon_that_its_loader_asks_for() -> None:
    """The reference writes it by another name only, and its file does not load."""
    found = toys.keys(toys.built(TOYS["qwen1"]))
    assert found["qwen.attention.layer_norm_rms_epsilon"] == found["qwen.attention.layer_norm_epsilon"]


def test_shared_experts_of_ernie_are_as_wide_as_they_are() -> None:
    """The reference divides other numbers, which happens to be right for the published sizes."""
    model = toys.built(TOYS["ernie4_5-moe"], lambda c: c.update(num_key_value_heads=4), lambda t: t.update({
        n: [64, 64] for n in t if "k_proj" in n or "v_proj" in n}))  # fmt: skip
    assert toys.keys(model)["ernie4_5-moe.expert_shared_feed_forward_length"] == 64


def test_multipliers_of_falcon_h1_are_folded_into_its_weights() -> None:
    model = toys.built(TOYS["falcon-h1"], lambda c: c.update(key_multiplier=2.0, attention_in_multiplier=0.5))
    stored = source("model.layers.0.self_attn.k_proj.weight", 32, 64)
    assert (values(model, "blk.0.attn_k.weight") == stored).all()
    assert (values(model, "blk.0.attn_v.weight") == source("model.layers.0.self_attn.v_proj.weight", 32, 64) / 2).all()


def test_outputs_of_rwkv_6_are_halved_every_few_layers() -> None:
    model = toys.built(TOYS["rwkv6"], lambda c: c.update(rescale_every=1))
    stored = source("rwkv.blocks.2.attention.output.weight", 64, 64)
    assert (values(model, "blk.2.time_mix_output.weight") == stored / 4).all()


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("deepseek2", "topk_method", "another"), ("minimax-m2", "attn_type_list", [0, 1]), ("grok", "max_attn_value", 20.0),
        ("exaone-moe", "hidden_act", "gelu"), ("bailingmoe", "norm_softmax", True), ("nomic-bert", "prenorm", True),
        ("nemotron", "hidden_act", "silu"), ("hunyuan-moe", "moe_topk", [2, 1]), ("llama4", "attn_scale", 0.2),
    ],
)  # fmt: skip
def test_what_a_runtime_does_not_compute_is_refused(name: str, key: str, value: Any) -> None:
    def said(c: dict[str, Any]) -> None:
        c.get("text_config", c)[key] = value

    with pytest.raises(BadInput, match=f"{key}"):
        toys.built(TOYS[name], said)
