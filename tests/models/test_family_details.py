"""What single families do beside renaming, on models that are names and shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from streamconv.errors import BadInput
from streamconv.models import FAMILIES, Model
from streamconv.models.families import minimax01, qwen4exp
from streamconv.models.tokenizers.brought_along import brought_template
from streamconv.models.tokenizers.chat_template import chat_templates
from streamconv.models.tokenizers.files import TokenizerFiles
from streamconv.models.tokenizers.special import SpecialTokens
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
@pytest.mark.parametrize("replaced", [True, False])
def test_minimax_01_has_a_template_that_runtimes_can_parse(own: str | None, begins: str, replaced: bool) -> None:
    side = {} if own is None else {"chat_template.jinja": own.encode()}
    if replaced:
        side["tokenizer_config.json"] = json.dumps({"chat_template": "{{ another }}"}).encode()
    assert minimax01.FAMILY.tokenizer is not None
    files = TokenizerFiles(Checkpoint(Path("toy"), {}, {}, (), side=side))
    templates, told = chat_templates(files, instead=brought_template(minimax01.FAMILY.tokenizer.template))
    assert templates.keys() == {"default"}
    assert templates["default"].startswith(begins)
    assert [text for text in told if "tokenizer_config.json is left out" in text] == told
    assert len(told) == replaced


def test_the_end_of_kimi_k3_is_that_of_config_json_and_no_note_says_otherwise() -> None:
    rule = FAMILIES["KimiK3ForConditionalGeneration"].tokenizer
    assert rule is not None
    added = [{"id": 5, "content": "<end>", "special": True}, {"id": 7, "content": "<turn>", "special": True}]
    said = {"tokenizer_config.json": {"eos_token": "<end>"}, "tokenizer.json": {"added_tokens": added}}
    side = {name: json.dumps(content).encode() for name, content in said.items()}
    files = TokenizerFiles(Checkpoint(Path("toy"), {}, {"text_config": {"eos_token_id": 7}}, (), side=side))
    special = SpecialTokens(files, 10, rule.end_from_config)
    assert (special.ids["eos"], special.warnings) == (7, [])
    assert "the tokenizer that it is 5, which is taken" in str(SpecialTokens(files, 10).warnings)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("deepseek2", "topk_method", "another"), ("minimax-m2", "attn_type_list", [0, 1]), ("grok", "max_attn_value", 20.0),
        ("exaone-moe", "hidden_act", "gelu"), ("bailingmoe", "norm_softmax", True), ("nomic-bert", "prenorm", True),
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


def test_experts_of_gemma_4_that_lie_one_by_one_are_stacked_beside_their_scale() -> None:
    """As checkpoints in NVFP4 have them."""

    def unfused(tensors: dict[str, list[int]]) -> None:
        for name in [name for name in tensors if name.endswith((".gate_up_proj", "experts.down_proj"))]:
            n_experts, n_rows, n_cols = tensors.pop(name)
            stem = name.rpartition(".")[0]
            parts = {"down_proj": [n_rows, n_cols]} if "down" in name else {
                part: [n_rows // 2, n_cols] for part in ("gate_proj", "up_proj")}  # fmt: skip
            tensors.update({f"{stem}.{x}.{part}.weight": s for x in range(n_experts) for part, s in parts.items()})

    whole, model = toys.shapes(toys.built(TOYS["gemma4-moe"])), toys.built(TOYS["gemma4-moe"], tensors=unfused)
    found = toys.shapes(model)
    assert found["blk.0.ffn_down_exps.weight"] == whole["blk.0.ffn_down_exps.weight"]
    assert found["blk.0.ffn_down_exps.scale"] == whole["blk.0.ffn_down_exps.scale"]
    n_experts, n_rows, n_cols = whole["blk.0.ffn_gate_up_exps.weight"]
    assert found["blk.0.ffn_gate_exps.weight"] == found["blk.0.ffn_up_exps.weight"] == [n_experts, n_rows // 2, n_cols]
    stored = source("model.language_model.layers.0.experts.1.up_proj.weight", n_rows // 2, n_cols)
    assert (values(model, "blk.0.ffn_up_exps.weight")[n_rows // 2 : n_rows] == stored).all()


def test_a_head_that_is_to_be_normalised_is_divided_by_the_lengths_of_its_columns() -> None:
    model = toys.built(TOYS["bailingmoe"], lambda c: c.update(norm_head=True))
    stored = source("lm_head.weight", 512, 64)
    assert values(model, "output.weight") == pytest.approx(stored / np.linalg.norm(stored, axis=0), rel=1e-5)
    plain = toys.built(TOYS["bailingmoe"], lambda c: c.update(norm_head=False))
    assert (values(plain, "output.weight") == stored).all()


def test_scores_of_earlier_layers_are_products_in_kimi_k3() -> None:
    model, name = toys.built(TOYS["kimi-k3"]), "language_model.model.layers.1.mlp_res"
    product = source(f"{name}_norm.weight", 64) * source(f"{name}_proj.weight", 1, 64)
    assert (values(model, "blk.1.ffn_res_score.weight") == product).all()


def test_one_name_is_two_tensors_in_kimi_k3_by_the_kind_of_the_layer() -> None:
    model = toys.built(
        TOYS["kimi-k3"],
        lambda c: c["text_config"]["linear_attn_config"].update(gate_lower_bound=-5.0),
        lambda t: t.update({n: [6] for n in t if n.endswith("A_log")}),
    )
    assert {"blk.2.ssm_g.weight", "blk.3.attn_gate.weight"} <= model.tensors.keys()
    assert not {"blk.3.ssm_g.weight", "blk.2.attn_gate.weight"} & model.tensors.keys()
    assert model.tensors["blk.0.ssm_a"].shape == (4,)
    assert toys.keys(model)["kimi-k3.kda.gate_lower_bound"] == -5.0


def test_routers_of_deepseek_v4_have_a_table_or_a_bias() -> None:
    def more(c: dict[str, Any]) -> None:
        c["num_hash_layers"] = 2

    table = {"layers.1.ffn.gate.tid2eid": [512, 2]}
    model = toys.built(TOYS["deepseek4"], more, lambda t: t.update(table))
    assert set(model.left_out) >= {"layers.1.ffn.gate.bias", "mtp.0.norm.weight"}
    assert list(model.tensors)[:2] == ["blk.0.ffn_gate_tid2eid.weight", "blk.1.ffn_gate_tid2eid.weight"]
    assert model.forced_types["blk.1.ffn_gate_tid2eid.weight"] == "I32"
    assert set(toys.built(TOYS["deepseek4"], tensors=lambda t: t.update(table)).left_out) > {*table}


def test_matrices_of_deepseek_v4_keep_their_types() -> None:
    types = toys.built(TOYS["deepseek4"]).forced_types
    assert types["blk.0.attn_q_a.weight"] == types["blk.0.ffn_gate_inp.weight"] == "F32"  # as toys are stored


def test_layers_of_ling_3_that_fill_no_group_have_latent_attention() -> None:
    def wider(c: dict[str, Any]) -> None:
        c["text_config"].update(num_hidden_layers=5, num_nextn_predict_layers=1)
        c["text_config"].update(expert_swiglu_limit_list=[None, 7.0])

    def more(t: dict[str, list[int]]) -> None:
        for n in [n for n in t if ".layers.3." in n]:
            t[n.replace("layers.3.", "layers.4.")] = t[n.replace("layers.3.", "layers.5.")] = t[n]

    found = toys.keys(toys.built(TOYS["bailingmoe3-vl"], wider, more))
    assert found["bailingmoe3.attention.head_count_kv"] == [0, 1, 0, 1, 1, 1]
    assert found["bailingmoe3.swiglu_clamp_exp"] == [0.0, 7.0, 0.0, 0.0, 0.0, 0.0]
    assert found["bailingmoe3.nextn_predict_layers"] == 1


def test_sections_of_positions_that_ling_3_lacks_are_refused() -> None:
    with pytest.raises(BadInput, match="mrope_section"):
        toys.built(TOYS["bailingmoe3-vl"], lambda c: c["text_config"].pop("mrope_section"))


def test_glm_5_3_may_say_its_sizes_outside_of_their_section() -> None:
    def outside(c: dict[str, Any]) -> None:
        for key in ("linear_attn_config", "indexer_types", "first_k_dense_replace"):
            c["text_config"].pop(key)
        c["text_config"].update(index_topk_pattern="SF")

    found = toys.keys(toys.built(TOYS["glm5-next"], outside))
    assert {**found, "glm5-next.attention.indexer.types": [True, True]} == toys.keys(toys.built(TOYS["glm5-next"]))
    assert found["glm5-next.attention.indexer.types"] == [False, True]


def test_glm_5_3_with_other_heads_in_one_kind_of_layers_is_refused() -> None:
    with pytest.raises(BadInput, match="linear_attn_config"):
        toys.built(TOYS["glm5-next"], lambda c: c["text_config"]["linear_attn_config"].update(num_heads=8))


def test_mistral_4_says_that_runtimes_do_not_sharpen_attention() -> None:
    assert any("llama_4_scaling_beta" in warning for warning in toys.built(TOYS["mistral4"]).warnings)
    with pytest.raises(BadInput, match="partial_rotary_factor"):
        toys.built(TOYS["mistral4"], lambda c: c["text_config"]["rope_parameters"].update(partial_rotary_factor=0.25))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("kimi-k3", "hidden_act", "silu"), ("kimi-k3", "mla_use_nope", False), ("bailingmoe3-vl", "no_kda_lora", False),
        ("bailingmoe3-vl", "kda_safe_gate", None), ("glm5-next", "qk_rope_head_dim", 16), ("deepseek4", "hc_mult", 2),
        ("deepseek4", "compress_ratios", [0, 8, 0, 0, 0]), ("deepseek4", "scoring_func", "sigmoid"),
    ],
)  # fmt: skip
def test_what_only_the_latest_models_could_say_is_refused_too(name: str, key: str, value: Any) -> None:
    with pytest.raises(BadInput, match=key):
        toys.built(TOYS[name], lambda c: c.get("text_config", c).update({key: value}))


def test_nemotron_h_has_the_epsilons_that_its_configuration_states() -> None:
    def epsilons(**stated: Any) -> tuple[Model, dict[str, float]]:
        model = toys.built(TOYS["nemotron-h"], lambda c: (c.pop("rms_norm_eps"), c.update(stated)))
        return model, {k.split(".")[-1]: v for k, v in toys.keys(model).items() if k.endswith("epsilon")}

    small, large = (float(np.float32(n)) for n in (1e-5, 1e-3))
    assert epsilons()[1] == {"layer_norm_epsilon": small}, "runtimes take it for the other"
    assert epsilons(rms_norm_eps=1e-5)[1] == {"layer_norm_rms_epsilon": small, "layer_norm_epsilon": small}
    model, found = epsilons(rms_norm_eps=1e-5, layer_norm_epsilon=1e-3)
    assert found == {"layer_norm_rms_epsilon": large, "layer_norm_epsilon": large}
    assert any("'rms_norm_eps' is 1e-05, but norms have layer_norm_epsilon" in note for note in model.warnings)


def test_a_file_that_is_read_as_it_stands_has_no_key_for_heads_that_it_does_not_count() -> None:
    found = toys.keys(toys.built(TOYS["minicpm"], lambda c: c.pop("num_key_value_heads")))
    assert (found["minicpm.attention.head_count"], found.get("minicpm.attention.head_count_kv")) == (4, None)


def test_hunyuan_vl_is_read_in_the_words_of_older_files() -> None:
    model = toys.built(TOYS["hunyuan-vl"], lambda c: c.update(attention_head_dim=c.pop("head_dim")))
    assert toys.keys(model)["hunyuan_vl.attention.key_length"] == 16


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (None, {"freq_base": 10000.0}),
        ({"type": "default", "mrope_section": [2, 2, 2, 2]}, {"freq_base": 10000.0, "dimension_sections": [2, 2, 2, 2]}),
        (
            {"type": "dynamic", "alpha": 1000.0, "mrope_section": [2, 2, 2, 2]},
            {
                "freq_base": 10000.0, "dimension_sections": [2, 2, 2, 2], "scaling.type": "none", "scaling.factor": 1.0,
                "scaling.alpha": 1000.0, "scaling.original_context_length": 32768,
            },
        ),
        (
            {"type": "dynamic", "alpha": 1000.0},
            {
                "freq_base": float(np.float32(10000.0 * 1000.0 ** (16 / 14))), "scaling.type": "none", "scaling.factor": 1.0,
                "scaling.original_context_length": 262144,
            },
        ),
    ],
)  # fmt: skip
def test_positions_of_hunyuan_vl_have_sections_or_are_those_of_the_dense_model(
    scaling: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    found = toys.keys(toys.built(TOYS["hunyuan-vl"], lambda c: c.update(rope_scaling=scaling)))
    prefix = "hunyuan_vl.rope."
    assert {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)} == expected
