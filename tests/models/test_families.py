"""Every architecture as names and shapes: keys and tensors are those of the reference converter, numbers those recorded."""

from __future__ import annotations

import re
from typing import Any

import pytest
import toys

from streamconv.errors import BadInput
from streamconv.models import FAMILIES

TOYS = toys.stored()
#: keys that the reference does not write: RoPE of windows for more than one runtime, and an epsilon that its loader asks for;
#: and those whose values are numbers of tensors
_MORE = re.compile(
    r".*\.rope\.(local_freq_base|freq_base_swa)$|(exaone|qwen)\.attention\.layer_norm_rms_epsilon$"
    r"|xielu\.|talkie\.logit_scale$|qwen4exp\.ple\.(layer_multipliers|head_)|jais\.attention\.max_alibi_bias$"
)


@pytest.mark.parametrize("name", TOYS)
def test_an_architecture_has_the_keys_tensors_and_numbers_that_are_recorded(name: str) -> None:
    toy = TOYS[name]
    model = toys.built(toy)
    found = toys.keys(model)
    assert {key: found.get(key) for key in toy["keys"]} == toy["keys"]
    assert [key for key in found if key not in toy["keys"] and not _MORE.match(key)] == []
    assert sorted(toys.shapes(model).items()) == sorted((n, list(shape)) for n, shape in toys.unpacked(toy["made"]))
    assert toys.digest(model) == toy["digest"]


@pytest.mark.parametrize("name", TOYS)
def test_a_tensor_that_an_architecture_does_not_know_is_refused(name: str) -> None:
    # of a checkpoint with the model that it helps a draft knows nothing but its own blocks
    block = "mtp.0" if name == "deepseek4-dspark" else "model.layers.0"
    with pytest.raises(BadInput, match="has no place"):
        toys.built(TOYS[name], tensors=lambda t: t.update({f"{block}.unheard_of.weight": [4, 4]}))


@pytest.mark.parametrize("name", ["qwen35", "falcon", "bloom", "gptneox", "internlm2", "stablelm-qknorm"])
def test_shapes_that_do_not_fit_the_heads_are_refused(name: str) -> None:
    fused = re.compile(r"qkv|query_key_value|_layernorm\.norms\.0")

    def cut(tensors: dict[str, list[int]]) -> None:
        for tensor, shape in tensors.items():
            if fused.search(tensor):
                tensors[tensor] = [shape[0] - 1, *shape[1:]]

    with pytest.raises(BadInput, match="does not fit"):
        toys.built(TOYS[name], tensors=cut)


def test_every_family_says_in_its_file_what_it_is() -> None:
    assert all(family.architectures and family.keys for family in FAMILIES.ours().values())


def without(part: str) -> Any:
    """A change that takes tensors with ``part`` in their names away."""

    def drop(tensors: dict[str, list[int]]) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return drop


def test_blocks_that_predict_further_tokens_count_only_where_they_are() -> None:
    """The reference counts what config.json says, and its file does not load."""
    whole, cut = toys.built(TOYS["qwen35"]), toys.built(TOYS["qwen35"], tensors=without("mtp."))
    assert toys.keys(whole)["qwen35.block_count"] == toys.keys(cut)["qwen35.block_count"] + 1
    assert "qwen35.nextn_predict_layers" not in toys.keys(cut)
    assert any("mtp_num_hidden_layers" in warning for warning in cut.warnings)
    assert not any("mtp_num_hidden_layers" in warning for warning in whole.warnings)


def test_values_of_as_many_heads_as_keys_stay_where_they_are() -> None:
    def one_each(c: dict[str, Any]) -> None:
        c["text_config"]["linear_num_value_heads"] = c["text_config"]["linear_num_key_heads"]

    def narrow(tensors: dict[str, list[int]]) -> None:
        for name, shape in tensors.items():
            if re.search(r"A_log|dt_bias|in_proj_[ab]\.", name):
                tensors[name] = [2, *shape[1:]]
            elif "in_proj_z" in name:
                tensors[name] = [32, shape[1]]
            elif re.search(r"in_proj_qkv|conv1d", name):
                tensors[name] = [96, *shape[1:]]
            elif "linear_attn.out_proj" in name:
                tensors[name] = [shape[0], 32]

    model = toys.built(TOYS["qwen35"], one_each, narrow)
    source = toys.Named("model.language_model.layers.0.linear_attn.in_proj_z.weight", (32, 64))
    assert (model.tensors["blk.0.attn_gate.weight"].read(0, 32) == source.read(0, 32)).all()


def test_a_model_of_texts_gets_the_sections_that_loaders_ask_for() -> None:
    model = toys.built(TOYS["qwen35"], lambda c: c["text_config"]["rope_parameters"].pop("mrope_section"))
    assert toys.keys(model)["qwen35.rope.dimension_sections"] == [11, 11, 10, 0]


def test_mask_buffers_of_gpt_2_are_left_out() -> None:
    """The reference stops at them, and so at the published files."""
    model = toys.built(TOYS["gpt2"], tensors=lambda t: t.update({"h.0.attn.bias": [1, 1, 8, 8]}))
    assert model.left_out == {"h.0.attn.bias": "a buffer"}
    assert toys.digest(model) == TOYS["gpt2"]["digest"]


def test_names_of_gpt_2_may_have_the_prefix_of_the_whole_model() -> None:
    def prefixed(tensors: dict[str, list[int]]) -> None:
        for name, shape in list(tensors.items()):
            tensors[f"transformer.{name}"] = shape
            del tensors[name]

    assert toys.shapes(toys.built(TOYS["gpt2"], tensors=prefixed)) == toys.shapes(toys.built(TOYS["gpt2"]))


@pytest.mark.parametrize("heads", [1, 4, None])
def test_old_falcon_decoders_of_many_queries_have_one_key(heads: int | None) -> None:
    """transformers fills in as many as there are heads, and the reference stops."""

    def spelled_anew(c: dict[str, Any]) -> None:
        c.update(model_type="falcon", num_hidden_layers=c.pop("n_layer"), num_attention_heads=c.pop("n_head"))
        c.update({"num_kv_heads": heads} if heads else {})

    model = toys.built(TOYS["falcon-7b"], spelled_anew)
    assert toys.keys(model)["falcon.attention.head_count_kv"] == 1
    assert toys.digest(model) == TOYS["falcon-7b"]["digest"]


def test_exaone_has_the_epsilon_that_its_loader_asks_for() -> None:
    """The reference writes it by another name only."""
    found = toys.keys(toys.built(TOYS["exaone"]))
    assert found["exaone.attention.layer_norm_rms_epsilon"] == found["exaone.attention.layer_norm_epsilon"]


def test_gpt_neox_rotates_the_share_that_config_json_says() -> None:
    """transformers 5 calls it otherwise, at which the reference stops."""
    half = toys.built(TOYS["gptneox"], lambda c: c.update(rotary_pct=0.5))
    by_default = toys.built(TOYS["gptneox"], lambda c: c.pop("rotary_pct"))
    assert [toys.keys(m)["gptneox.rope.dimension_count"] for m in (half, by_default)] == [8, 4]


def test_a_base_of_rope_that_loaders_do_not_guess_is_written() -> None:
    """The reference writes none for these architectures."""
    model = toys.built(TOYS["gptneox"], lambda c: c.update(rotary_emb_base=20000))
    assert toys.keys(model)["gptneox.rope.freq_base"] == 20000
    assert "gptneox.rope.freq_base" not in toys.keys(toys.built(TOYS["gptneox"]))


def test_cohere_rotates_whole_heads_where_config_json_does_not_say() -> None:
    """The reference stops at what transformers 5 saves."""
    model = toys.built(TOYS["cohere2"], lambda c: c.pop("rotary_pct"))
    assert toys.keys(model)["cohere2.rope.dimension_count"] == 16


def test_a_bias_that_runtimes_would_not_add_is_refused() -> None:
    with pytest.raises(BadInput, match="not all zeros"):
        toys.built(TOYS["cohere2"], tensors=lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": [64]}))


def test_a_network_of_another_width_than_runtimes_take_is_refused() -> None:
    with pytest.raises(BadInput, match="intermediate_size"):
        toys.built(TOYS["phi2"], lambda c: c.update(intermediate_size=200))


def test_llama3_scaling_that_granite_cannot_say_is_refused() -> None:
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64}  # fmt: skip
    with pytest.raises(BadInput, match="llama3"):
        toys.built(TOYS["granite"], lambda c: c.update(rope_scaling=rope))


def test_layers_without_positions_that_runtimes_do_not_know_are_refused() -> None:
    with pytest.raises(BadInput, match="no_rope_layers"):
        toys.built(TOYS["smollm3"], lambda c: c.update(no_rope_layers=[1, 0, 1, 0]))


def test_factors_of_rope_must_be_as_many_as_rotated_pairs() -> None:
    with pytest.raises(BadInput, match="8 numbers"):
        toys.built(TOYS["phi3-b"], lambda c: c["rope_scaling"].update(long_factor=[1.0] * 7))


def test_further_blocks_of_exaone_share_what_config_json_says() -> None:
    one = toys.built(TOYS["exaone4_5"])
    two = toys.built(
        TOYS["exaone4_5"], lambda c: c["text_config"].update(num_nextn_predict_layers=2, mtp_share_layers=True)
    )
    assert toys.keys(two)["exaone4.block_count"] == toys.keys(one)["exaone4.block_count"] + 1
    for name in [name for name in one.tensors if name.startswith("blk.2.")]:
        for copy in (name, name.replace("blk.2.", "blk.3.")):
            assert (two.tensors[copy].read(0, 1) == one.tensors[name].read(0, 1)).all(), copy
    none = toys.built(TOYS["exaone4_5"], lambda c: c["text_config"].update(num_nextn_predict_layers=0))
    assert toys.keys(none)["exaone4.block_count"] == 2
    assert not any(".nextn." in name for name in none.tensors)
    assert "mtp.fc.weight" in none.left_out


def test_a_window_pattern_may_be_letters_or_a_number() -> None:
    def stated(pattern: object) -> list[bool]:
        model = toys.built(
            TOYS["exaone4"], lambda c: (c.pop("layer_types", None), c.update(sliding_window_pattern=pattern))
        )
        found: list[bool] = toys.keys(model)["exaone4.attention.sliding_window_pattern"]
        return found

    assert stated("LG") == [True, False, True, False]
    assert stated(3) == [True, True, False, True]


def test_layers_of_gemma_4_may_be_told_one_by_one() -> None:
    def one_by_one(c: dict[str, Any]) -> None:
        text = c["text_config"]
        del text["global_head_dim"]
        text.update(num_global_key_value_heads=None, use_double_wide_mlp=False)
        text["per_layer_config"] = {
            "1": {"head_dim": 64}, "2": {"intermediate_size": 128}, "3": {"head_dim": 64, "intermediate_size": 128},
        }  # fmt: skip

    assert toys.keys(toys.built(TOYS["gemma4-ple"], one_by_one)) == toys.keys(toys.built(TOYS["gemma4-ple"]))


def test_logits_of_gemma_4_without_a_cap_are_told_of() -> None:
    """No key can say so to the loader, which takes 30 where there is none."""
    capped = toys.built(TOYS["gemma4-ple"])
    free = toys.built(TOYS["gemma4-ple"], lambda c: c["text_config"].update(final_logit_softcapping=None))
    assert [any("cap logits at 30" in warning for warning in m.warnings) for m in (capped, free)] == [False, True]


def test_tables_of_gemma_3n_are_filled_up_with_zeros() -> None:
    rows = toys.built(TOYS["gemma3n-text"]).tensors["per_layer_token_embd.weight"]
    assert rows.shape[0] == 512
    assert rows.read(479, 480).any()
    assert not rows.read(480, 512).any()


def test_stretched_contexts_of_hunyuan_are_another_base() -> None:
    found = toys.keys(toys.built(TOYS["hunyuan-dense"]))
    assert found["hunyuan-dense.rope.freq_base"] == 874339.3125
    with pytest.raises(BadInput, match="no known Hunyuan"):
        toys.built(TOYS["hunyuan-dense"], lambda c: c.update(rope_theta=20000.0))


def test_a_model_may_lie_below_what_thinks_of_a_model_that_speaks() -> None:
    assert "thinker_config" in TOYS["qwen25omni"]["config"]
    assert toys.keys(toys.built(TOYS["qwen25omni"]))["qwen2vl.rope.dimension_sections"] == [2, 3, 3, 0]


def test_packed_experts_of_qwen_3_vl_may_lie_one_by_one() -> None:
    def apart(tensors: dict[str, list[int]]) -> None:
        for name in [name for name in tensors if ".experts." in name]:
            at, _, _ = name.rpartition(".")
            del tensors[name]
            for x in range(4):
                tensors[f"{at}.{x}.down_proj.weight"] = [64, 32]
                tensors[f"{at}.{x}.gate_proj.weight"] = tensors[f"{at}.{x}.up_proj.weight"] = [32, 64]

    model = toys.built(TOYS["qwen3vlmoe"], tensors=apart)
    assert toys.shapes(model) == toys.shapes(toys.built(TOYS["qwen3vlmoe"]))
