"""Stacks of layers, tied heads, mixtures: that tensors and config.json of the result belong together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from merge_cases import open_text, random_model, values_of

from streamconv import sources
from streamconv.errors import BadInput, InputMissing, UsageError
from streamconv.merging.layout import lay_out
from streamconv.models import build, family_of

HIDDEN, FFN, VOCAB = 8, 12, 16
_NORMS = {
    "llama": ("input_layernorm", "post_attention_layernorm"),
    "gemma": ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
}


def shapes(layers: int, norms: str = "llama", prefix: str = "model.", head: bool = True) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {f"{prefix}embed_tokens.weight": (VOCAB, HIDDEN)}
    for i in range(layers):
        at = f"{prefix}layers.{i}."
        found |= {f"{at}{norm}.weight": (HIDDEN,) for norm in _NORMS[norms]}
        found |= {f"{at}self_attn.{x}_proj.weight": (HIDDEN, HIDDEN) for x in "qkvo"}
        found |= {f"{at}mlp.{x}_proj.weight": (FFN, HIDDEN) for x in ("gate", "up")}
        found[f"{at}mlp.down_proj.weight"] = (HIDDEN, FFN)
    found[f"{prefix}norm.weight"] = (HIDDEN,)
    return {**found, "lm_head.weight": (VOCAB, HIDDEN)} if head else found


def config(model_type: str, layers: int, **more: Any) -> dict[str, Any]:
    names = {"qwen2": "Qwen2", "qwen3": "Qwen3", "gemma2": "Gemma2", "gemma3_text": "Gemma3", "llama": "Llama"}
    return {
        "architectures": [f"{names[model_type]}ForCausalLM"], "model_type": model_type, "hidden_size": HIDDEN,
        "intermediate_size": FFN, "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 2,
        "head_dim": 4, "vocab_size": VOCAB, "torch_dtype": "float32", **more,
    }  # fmt: skip


STACK = """merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 4]}]
- sources: [{model: b, layer_range: [1, 6]}]
"""
_S, _F = "sliding_attention", "full_attention"


def slices(method: str, *parts: str) -> str:
    """A recipe whose slices have sources such as ``a 0 3``, several of them separated by commas."""
    told = [[source.split() for source in part.split(",")] for part in parts]
    sources = [
        "; ".join(f"{{model: {name}, layer_range: [{start}, {stop}]}}" for name, start, stop in part) for part in told
    ]
    return "\n".join(
        [
            f"merge_method: {method}",
            "dtype: float32",
            "slices:",
            *(f"- sources: [{s.replace(';', ',')}]" for s in sources),
        ]
    )


@pytest.mark.parametrize(
    ("text", "origins", "n"),
    [
        (("passthrough", "a 0 3", "b 3 3"), "aab", 3),
        (("passthrough", "b 0 0", "a 0 3"), "baa", 3),
        (("passthrough", "b 0 0", "a 1 3", "b 2 2"), "bab", 2),
        (("passthrough", "a 0 1", "b 1 1", "a 2 3"), "aaa", 2),
        (("slerp\nbase_model: a\nparameters: {t: 0}", "a 0 3, b 0 3", "b 3 3"), "aab", 3),
    ],
)
def test_a_slice_without_layers_gives_what_lies_outside_of_them(
    text: tuple[str, ...], origins: str, n: int, tmp_path: Path
) -> None:
    for seed, name in enumerate("ab"):
        random_model(tmp_path / name, seed, shapes(3), config("llama", 3))
    merged = open_text(tmp_path, slices(*text))
    assert merged.config["num_hidden_layers"] == n
    assert set(merged.tensors) == set(shapes(n))
    models = {name: sources.open_checkpoint(tmp_path / name).tensors for name in "ab"}
    of = dict(
        zip(("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight"), origins, strict=True)
    )
    first = int(text[2 if text[1].endswith(" 0 0") else 1].split()[1])
    for key, name in (*of.items(), ("model.norm.weight", origins[2])):
        theirs = models[name][key.replace("layers.0", f"layers.{first}")]
        np.testing.assert_allclose(values_of(merged.tensors[key]), values_of(theirs), rtol=1e-6)


@pytest.mark.parametrize("ranges", [("0 0",), ("3 3", "0 0"), ("1 1", "2 2", "3 3")])
def test_a_recipe_of_nothing_but_slices_without_layers_is_refused(ranges: tuple[str, ...], tmp_path: Path) -> None:
    random_model(tmp_path / "a", 0, shapes(3), config("llama", 3))
    with pytest.raises(BadInput, match="contain no layers"):
        open_text(tmp_path, slices("passthrough", *(f"a {each}" for each in ranges)))


@pytest.mark.parametrize(
    ("model_type", "norms", "more", "kinds"),
    [
        ("llama", "llama", {}, None),
        ("gemma2", "gemma", {}, [_S, _F, _S, _F, _F, _S, _F, _S, _F]),
        ("gemma2", "gemma", {"layer_types": [_S, _F] * 3}, [_S, _F, _S, _F, _F, _S, _F, _S, _F]),
        ("gemma3_text", "gemma", {}, [_S] * 8 + [_F]),
        ("gemma3_text", "gemma", {"sliding_window_pattern": 3}, [_S, _S, _F, _S, _S, _F, _S, _S, _F]),
        ("qwen2", "llama", {"layer_types": [_F] * 6, "max_window_layers": 6, "use_sliding_window": False}, [_F] * 9),
        ("qwen3", "llama", {"layer_types": [_F] * 6, "max_window_layers": 28}, [_F] * 9),
        (
            "qwen2",
            "llama",
            {"max_window_layers": 3, "use_sliding_window": True},
            [_F, _F, _F, _S, _F, _F, _S, _S, _S],
        ),
    ],
)
def test_a_stack_counts_its_layers_and_lists_their_kinds(
    model_type: str, norms: str, more: dict[str, Any], kinds: list[str] | None, tmp_path: Path
) -> None:
    for seed, name in enumerate("ab"):
        random_model(tmp_path / name, seed, shapes(6, norms), config(model_type, 6, **more))
    merged = open_text(tmp_path, STACK)
    assert merged.config["num_hidden_layers"] == 9
    assert merged.config.get("layer_types") == kinds
    if "max_window_layers" in more:
        assert merged.config["max_window_layers"] == (3 if more["max_window_layers"] == 3 else 9)
    assert set(merged.tensors) == set(shapes(9, norms))
    origin = [("a", i) for i in range(4)] + [("b", i) for i in range(1, 6)]
    models = {name: sources.open_checkpoint(tmp_path / name).tensors for name in "ab"}
    for i, (name, layer) in enumerate(origin):
        for key in ("mlp.up_proj.weight", "input_layernorm.weight"):
            mine, theirs = merged.tensors[f"model.layers.{i}.{key}"], models[name][f"model.layers.{layer}.{key}"]
            np.testing.assert_array_equal(values_of(mine), values_of(theirs))
    for key, name in (("model.embed_tokens.weight", "a"), ("model.norm.weight", "b"), ("lm_head.weight", "b")):
        np.testing.assert_array_equal(values_of(merged.tensors[key]), values_of(models[name][key]))


def test_the_text_section_of_a_multimodal_config_is_the_one_that_counts(tmp_path: Path) -> None:
    text = config("gemma3_text", 6)
    nested = {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text,
        "vision_config": {"num_hidden_layers": 2},
    }  # fmt: skip
    tensors = shapes(6, "gemma", "language_model.model.", head=False)
    tensors |= {f"vision_tower.vision_model.encoder.layers.{i}.mlp.fc1.weight": (4, 4) for i in range(2)}
    tensors["multi_modal_projector.mm_input_projection_weight"] = (4, HIDDEN)
    for seed, name in enumerate("ab"):
        random_model(tmp_path / name, seed, tensors, nested)
    recipe = """merge_method: passthrough
modules:
  text_decoder:
    slices:
    - sources: [{model: a, layer_range: [0, 4]}]
    - sources: [{model: b, layer_range: [1, 6]}]
  vision_tower: {models: [{model: a}]}
  multi_modal_projector: {models: [{model: a}]}
"""
    merged = open_text(tmp_path, recipe)
    assert merged.config["text_config"]["num_hidden_layers"] == 9
    assert merged.config["text_config"]["layer_types"] == [_S] * 8 + [_F]
    assert merged.config["vision_config"]["num_hidden_layers"] == 2
    assert sum("vision_tower" in name for name in merged.tensors) == 2
    assert "language_model.model.layers.8.mlp.up_proj.weight" in merged.tensors
    with pytest.raises(UsageError, match="slices are ambiguous"):
        open_text(tmp_path, STACK)


def test_the_stack_of_a_module_is_its_tallest_and_others_stand_outside() -> None:
    names = [f"vision_model.{x}transformer.layers.{i}.fc" for x, n in (("global_", 2), ("", 4)) for i in range(n)]
    layout = lay_out([*names, "model.layers.0.fc", "model.norm.weight"], {})
    assert layout.counts == {"vision_tower": 4, "text_decoder": 1}
    assert layout.prefixes["vision_tower"] == "vision_model.transformer.layers."
    assert [layout.names[place] for place in layout.inside("vision_tower", 3)] == names[-1:]
    assert [layout.names[place] for place in layout.outside("vision_tower")] == names[:2]


LINEAR = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"


def test_a_head_that_one_model_has_is_merged_with_the_embedding_of_the_tied_one(tmp_path: Path) -> None:
    random_model(tmp_path / "a", 0, shapes(1, head=False), config("llama", 1, tie_word_embeddings=True))
    random_model(tmp_path / "b", 1, shapes(1), config("llama", 1, tie_word_embeddings=True))
    merged = open_text(tmp_path, LINEAR)
    a, b = (sources.open_checkpoint(tmp_path / name).tensors for name in "ab")
    want = (values_of(a["model.embed_tokens.weight"]) + values_of(b["lm_head.weight"])) / 2
    np.testing.assert_array_equal(values_of(merged.tensors["lm_head.weight"]), want)
    assert merged.config["tie_word_embeddings"] is False


def test_tied_models_stay_tied(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        random_model(tmp_path / name, seed, shapes(1, head=False), config("llama", 1, tie_word_embeddings=True))
    merged = open_text(tmp_path, LINEAR)
    assert "lm_head.weight" not in merged.tensors
    assert merged.config["tie_word_embeddings"] is True


def test_the_family_default_is_overruled_where_a_head_appears(tmp_path: Path) -> None:
    for name, head in (("a", False), ("b", True)):
        random_model(tmp_path / name, 1, shapes(2, "gemma", head=head), config("gemma2", 2))
    assert open_text(tmp_path, LINEAR).config["tie_word_embeddings"] is False


def test_quantization_and_the_name_of_the_donor_are_forgotten(tmp_path: Path) -> None:
    settings = {"quantization_config": {"quant_method": "gptq"}, "_name_or_path": "someone/else", "custom": [1]}
    for seed, name in enumerate("ab"):
        random_model(tmp_path / name, seed, shapes(1), config("llama", 1, **settings))
    found = open_text(tmp_path, LINEAR).config
    assert "quantization_config" not in found
    assert "_name_or_path" not in found
    assert found["custom"] == [1]


MIXTURE = """base_model: a
gate_mode: random
experts:
- {source_model: a}
- {source_model: b, residual_scale: 0.5}
"""


def test_a_mixture_has_the_experts_side_by_side(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        random_model(tmp_path / name, seed, shapes(2), config("llama", 2))
    merged = open_text(tmp_path, MIXTURE)
    a, b = (sources.open_checkpoint(tmp_path / name).tensors for name in "ab")
    found = merged.tensors
    assert found["model.layers.1.mlp.experts.gate_up_proj"].shape == (2, 2 * FFN, HIDDEN)
    want = [values_of(m[f"model.layers.1.mlp.{p}_proj.weight"]) for m in (a, b) for p in ("gate", "up")]
    experts = values_of(found["model.layers.1.mlp.experts.gate_up_proj"], 5)
    np.testing.assert_array_equal(experts.reshape(4, FFN, HIDDEN), want)
    down = values_of(found["model.layers.1.mlp.experts.down_proj"], 3)
    np.testing.assert_array_equal(down[1], values_of(b["model.layers.1.mlp.down_proj.weight"]) * np.float32(0.5))
    gates = [values_of(found[f"model.layers.{i}.mlp.gate.weight"]) for i in range(2)]
    assert gates[0].shape == (2, HIDDEN)
    assert not np.any(gates[0] == gates[1])
    assert merged.config["num_local_experts"] == merged.config["num_experts_per_tok"] == 2
    assert merged.config["architectures"] == ["MixtralForCausalLM"]
    other = open_text(tmp_path, MIXTURE, seed=1).tensors
    assert not np.any(values_of(other["model.layers.0.mlp.gate.weight"]) == gates[0])


def test_noise_has_the_deviation_asked_for(tmp_path: Path) -> None:
    for name in "ab":
        random_model(tmp_path / name, 0, shapes(1), config("llama", 1))
    noisy = MIXTURE.replace("residual_scale: 0.5", "noise_scale: 0.1")
    merged = open_text(tmp_path, noisy).tensors["model.layers.0.mlp.experts.gate_up_proj"]
    values = values_of(merged)
    noise = values[1] - values[0]
    assert 0.07 < noise.std() < 0.13
    np.testing.assert_array_equal(values_of(merged, 1), values)


def test_experts_made_of_one_model_get_noise_of_their_own(tmp_path: Path) -> None:
    random_model(tmp_path / "a", 0, shapes(1), config("llama", 1))
    noisy = "base_model: a\ngate_mode: random\nexperts:\n" + 2 * "- {source_model: a, noise_scale: 0.1}\n"
    tensors = open_text(tmp_path, noisy).tensors
    for name in ("gate_up_proj", "down_proj"):
        first, second = np.split(values_of(tensors[f"model.layers.0.mlp.experts.{name}"]), 2)
        assert not np.any(first == second)


@pytest.mark.parametrize(("model_type", "shared"), [("qwen3", False), ("qwen2", True)])
def test_mixtures_of_other_families_have_an_expert_a_tensor(model_type: str, shared: bool, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        random_model(tmp_path / name, seed, shapes(1), config(model_type, 1))
    text = MIXTURE + ("shared_experts: [{source_model: a}]\n" if shared else "")
    merged = open_text(tmp_path, text)
    assert merged.tensors["model.layers.0.mlp.experts.1.gate_proj.weight"].shape == (FFN, HIDDEN)
    assert ("model.layers.0.mlp.shared_expert_gate.weight" in merged.tensors) == shared
    assert merged.config["model_type"] == f"{model_type}_moe"
    assert merged.config["num_experts"] == 2


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (MIXTURE.replace("random", "hidden"), BadInput, "no positive_prompts, from which gate_mode hidden is computed"),
        (MIXTURE.replace("gate_mode: random\n", ""), BadInput, "no positive_prompts, from which gate_mode hidden"),
        (MIXTURE.replace("random", "rondom"), BadInput, "Did you mean 'random'"),
        (MIXTURE.replace("random", "cheap_embed"), BadInput, "no positive_prompts"),
        (MIXTURE.replace("base_model: a\n", ""), BadInput, "base_model is missing"),
        (MIXTURE.replace("residual_scale", "residual_scala"), BadInput, "Did you mean 'residual_scale'"),
        (MIXTURE + "experts_per_token: 3\n", BadInput, "not a number from 1 to 2"),
        (MIXTURE + "architecture: mixtrall\n", BadInput, "Did you mean 'mixtral'"),
        (MIXTURE + "architecture: qwen3\n", BadInput, "a is a llama model, qwen3 accepts qwen3"),
        (MIXTURE + "shared_experts: [{source_model: a}, {source_model: b}]\n", BadInput, "at most one"),
    ],
)
def test_mixtures_that_cannot_be_made_are_refused(
    text: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    for seed, name in enumerate("ab"):
        random_model(tmp_path / name, seed, shapes(1), config("llama", 1))
    with pytest.raises(error, match=message):
        open_text(tmp_path, text)


@pytest.mark.parametrize(("model_type", "has_gate"), [("llama", False), ("qwen2", True)])
def test_a_shared_expert_needs_prompts_where_it_has_a_gate(model_type: str, has_gate: bool, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        random_model(tmp_path / name, seed, shapes(1), config(model_type, 1))
        (tmp_path / name / "tokenizer.json").write_text(
            json.dumps({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"x": 0, "y": 1}, "unk_token": "x"}})
        )
    text = MIXTURE.replace("random", "cheap_embed").replace("source_model: a", "source_model: a, positive_prompts: [x]")
    text = text.replace("source_model: b", "source_model: b, positive_prompts: [y]")
    text += "shared_experts: [{source_model: b}]\n"
    if has_gate:
        with pytest.raises(BadInput, match=r"shared_experts\[0\]: no positive_prompts"):
            open_text(tmp_path, text)
        return
    merged = open_text(tmp_path, text)
    assert merged.config["model_type"] == "deepseek"
    assert merged.tensors["model.layers.0.mlp.shared_experts.up_proj.weight"].shape == (FFN, HIDDEN)


def test_prompts_need_a_tokenizer(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        random_model(tmp_path / name, seed, shapes(1), config("llama", 1))
    text = MIXTURE.replace("random", "cheap_embed").replace("source_model: a", "source_model: a, positive_prompts: [x]")
    text = text.replace("source_model: b", "source_model: b, positive_prompts: [y]")
    with pytest.raises(InputMissing, match=r"has no tokenizer\.json"):
        open_text(tmp_path, text)
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match="cannot split the prompts"):
        open_text(tmp_path, text)


def test_a_stack_of_a_bundled_model_is_a_model(tiny_model: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tall.yml"
    recipe.write_text(
        "merge_method: passthrough\nslices:\n"
        f"- sources: [{{model: {tiny_model}, layer_range: [0, 6]}}]\n- sources: [{{model: {tiny_model}, layer_range: [0, 6]}}]\n"
    )
    from streamconv import merging

    merged = merging.open_recipe(recipe, sources.open_checkpoint)
    assert merged.config["num_hidden_layers"] == 12
    built = build(merged, family_of(merged))
    assert built.metadata.get(f"{built.arch}.block_count") == 12
    assert built.metadata.get("general.name") == "Tall"


ODD = {"vision.patch.kernel": (4, 3, 2, 2), "model.layers.{}.gate.alpha": (), "model.layers.{}.memory.slots": (5, HIDDEN),
       "codebook": (7, 3)}  # fmt: skip


def odd_shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """A model with tensors that no list of an architecture has."""
    return shapes(layers) | {name.format(i): shape for name, shape in ODD.items() for i in range(layers)}


def test_a_merge_has_every_tensor_of_its_inputs_whatever_they_are_called(tmp_path: Path) -> None:
    models = [open_model(tmp_path, name, seed, odd_shapes(2)) for seed, name in enumerate("ab", 1)]
    text = "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 0.25}}\n- {model: b, parameters: {weight: 0.75}}\n"
    merged = open_text(tmp_path, text).tensors
    assert set(merged) == set(models[0])
    for name, rows in merged.items():
        want = 0.25 * values_of(models[0][name]).astype(np.float64) + 0.75 * values_of(models[1][name])
        np.testing.assert_allclose(values_of(rows), want, rtol=2e-6, atol=1e-7)


def test_a_stack_has_every_tensor_of_its_layers_whatever_they_are_called(tmp_path: Path) -> None:
    model = open_model(tmp_path, "a", 1, odd_shapes(3))
    merged = open_text(tmp_path, slices("passthrough", "a 0 2", "a 1 3")).tensors
    taken = [0, 1, 1, 2]
    assert set(merged) == set(odd_shapes(4))
    for i, source in enumerate(taken):
        for name in (name for name in odd_shapes(4) if f"layers.{i}." in name):
            at = name.replace(f"layers.{i}.", f"layers.{source}.")
            assert np.array_equal(values_of(merged[name]), values_of(model[at])), name


def open_model(folder: Path, name: str, seed: int, shapes: dict[str, tuple[int, ...]]) -> Any:
    layers = 1 + max(int(n.split(".")[2]) for n in shapes if n.startswith("model.layers."))
    return sources.open_checkpoint(random_model(folder / name, seed, shapes, config("llama", layers))).tensors
