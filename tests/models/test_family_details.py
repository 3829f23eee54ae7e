"""What single families do beside renaming, on models that are names and shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from streamconv.errors import BadInput
from streamconv.metadata import Metadata
from streamconv.models.config import normalise
from streamconv.models.families import minimax01, qwen4exp
from streamconv.sources.checkpoint import Checkpoint

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


def test_blocks_of_mimo_that_predict_further_tokens_are_as_many_as_the_checkpoint_has() -> None:
    """The reference counts three of them, which no key of config.json says."""

    def cut(tensors: dict[str, list[int]]) -> None:
        for name in [name for name in tensors if name.startswith("model.mtp.layers.2.")]:
            del tensors[name]

    found = toys.keys(toys.built(TOYS["mimo2"], tensors=cut))
    assert (found["mimo2.block_count"], found["mimo2.nextn_predict_layers"]) == (5, 2)
    assert found["mimo2.attention.sliding_window_pattern"] == [0, 1, 1, 1, 1]


def test_the_second_half_of_talkies_heads_is_negated() -> None:
    stored = source("model.blocks.0.attn.attn_key.weight", 64, 64).reshape(4, 2, 8, 64)
    made = values(toys.built(TOYS["talkie"]), "blk.0.attn_k.weight").reshape(4, 2, 8, 64)
    assert (made[:, 0] == stored[:, 0]).all()
    assert (made[:, 1] == -stored[:, 1]).all()


def test_adapters_of_granite_switch_lie_behind_one_that_changes_nothing() -> None:
    made = values(toys.built(TOYS["granite-switch"]), "blk.1.attn_v.lora_b").reshape(3, 32, 4)
    stored = source("model.layers.1.self_attn.qkv_proj.lora_B_slices.2", 2, 1, 32, 4).reshape(2, 32, 4)
    assert not made[0].any()
    assert (made[1:] == stored).all()


def test_an_adapter_that_is_no_part_of_the_architecture_is_refused_beside_those_that_are() -> None:
    def strange(tensors: dict[str, list[int]]) -> None:
        tensors["model.layers.0.self_attn.k_proj.lora_A.default.weight"] = [4, 64]

    with pytest.raises(BadInput, match="PEFT adapter"):
        toys.built(TOYS["granite-switch"], tensors=strange)


class Whole(toys.Named):
    """Whole numbers, as a file stores them."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__("", (len(numbers),))
        self.numbers = np.array([numbers], "<i8")

    def native(self, kind: str, start: int, stop: int) -> Any:
        return self.numbers[start:stop].view(np.uint8) if kind == "I64" else None


def test_the_hash_of_n_grams_keeps_all_its_digits() -> None:
    assert qwen4exp.whole_numbers(Whole([2**45 + 1, 3, 0])) == [2**45 + 1, 3, 0]


def test_shards_of_the_embeddings_of_n_grams_may_be_of_different_lengths_and_all_must_be_there() -> None:
    shard = "model.language_model.layers.2.ple.ple_embedding.ngram_embedding.shard_{}.weight"
    longer = toys.built(TOYS["qwen4exp"], tensors=lambda t: t.update({shard.format(3): [9, 16]}))
    assert longer.tensors["per_layer_token_embd.weight"].shape == (3 * 106 + 9, 16)
    assert (values(longer, "per_layer_token_embd.weight")[-9:] == source(shard.format(3), 9, 16)).all()
    with pytest.raises(BadInput, match="3 shards"):
        toys.built(TOYS["qwen4exp"], tensors=lambda t: t.pop(shard.format(3)))


def test_norms_of_dots_note_hold_what_their_outputs_are_scaled_by_only_where_these_are() -> None:
    stored = source("model.layers.1.self_attn.kv_a_layernorm.weight", 64)
    plain = toys.built(TOYS["dots3note"], lambda c: c.update(apply_mla_qkv_lora_rescale=False, hidden_size=64))
    assert (values(plain, "blk.1.attn_kv_a_norm.weight") == stored).all()
    scaled = values(toys.built(TOYS["dots3note"]), "blk.0.attn_q_a_norm.weight")
    by = np.float32(np.sqrt(2.0))
    assert (scaled == source("model.layers.0.self_attn.q_a_layernorm.weight", 32) * by).all()


@pytest.mark.parametrize(("own", "begins"), [(None, "{{ '<begin_of_document>' -}}"), ("{{ mine }}", "{{ mine }}")])
def test_minimax_01_has_a_template_that_runtimes_can_parse(own: str | None, begins: str) -> None:
    side = {} if own is None else {"chat_template.jinja": own.encode()}
    config = replace(normalise({}, {}), checkpoint=Checkpoint(Path("toy"), {}, {}, (), side=side))
    m = Metadata()
    m.string("tokenizer.chat_template", "{{ that of tokenizer_config.json }}")
    minimax01.template(m, "minimax-01", config)
    assert str(m.get("tokenizer.chat_template")).startswith(begins)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("deepseek2", "topk_method", "another"), ("minimax-m2", "attn_type_list", [0, 1]), ("grok", "max_attn_value", 20.0),
        ("exaone-moe", "hidden_act", "gelu"), ("bailingmoe", "norm_head", True), ("nomic-bert", "prenorm", True),
        ("nemotron", "hidden_act", "silu"), ("hunyuan-moe", "moe_topk", [2, 1]), ("llama4", "attn_scale", 0.2),
        ("mimo2", "swa_head_dim", 64), ("mimo2", "routed_scaling_factor", 2.5), ("minimax-m3", "hidden_act", "silu"),
        ("minimax-m3", "sparse_attention_config", None), ("cohere2moe", "shared_expert_combination_strategy", "sum"),
        ("qwen4exp", "ple_layer_ids", [1, 3]), ("granite-switch", "adapter_token_ids", [1]),
        ("granite-switch", "num_local_experts", 4),
        ("muse-glimmer", "layer_rope_theta", [500000.0] * 4), ("muse-glimmer", "post_norm_eps", 1e-6),
        ("hy-v4", "mlp_layer_types", ["dense", "dense"]), ("hy-v4", "indexer_types", ["shared", "full"]),
        ("dots3note", "swa_attention_gate_type", "elementwise"), ("dots3note", "swa_q_lora_rank", 16),
    ],
)  # fmt: skip
def test_what_a_runtime_does_not_compute_is_refused(name: str, key: str, value: Any) -> None:
    def said(c: dict[str, Any]) -> None:
        c.get("text_config", c)[key] = value

    with pytest.raises(BadInput, match=f"{key}"):
        toys.built(TOYS[name], said)
