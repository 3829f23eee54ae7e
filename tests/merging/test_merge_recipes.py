"""Recipes: grammar and precedence of parameters, several documents, plain files, and everything that is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from merge_cases import CONFIG, open_text, random_model, values_of, write_model

from streamconv import merging, sources
from streamconv.errors import BadInput, InputMissing, StreamconvError
from streamconv.merging.settings import parse_setting
from streamconv.rows import digest_of

LAYERED = {**CONFIG, "num_hidden_layers": 2}
SHAPES = {
    "model.embed_tokens.weight": (8, 4),
    **{f"model.layers.{i}.{name}.weight": (4, 4) for i in (0, 1) for name in ("mlp.up_proj", "self_attn.q_proj")},
    "model.norm.weight": (4,),
    "lm_head.weight": (8, 4),
}
LINEAR = "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n- {model: b, parameters: {weight: 3}}\n"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for seed, name in enumerate("abc"):
        random_model(tmp_path / name, seed, SHAPES, LAYERED)
    return tmp_path


def constant(folder: Path, name: str, value: float) -> None:
    write_model(folder / name, {n: np.full(shape, value, "<f4") for n, shape in SHAPES.items()}, LAYERED)


@pytest.mark.parametrize(
    ("setting", "name", "t", "value"),
    [
        (0.5, "x", 0.0, 0.5),
        ("1e-3", "x", 0.0, 0.001),
        ([0, 1], "x", 0.25, 0.25),
        ([0, 10, 0], "x", 0.75, 5.0),
        ([3], "x", 1.0, 3.0),
        ([], "x", 0.5, None),
        ({"value": 2, "filter": "mlp"}, "a.mlp.b", 0.0, 2.0),
        ({"value": 2, "filter": "mlp"}, "a.MLP.b", 0.0, None),
        ([{"filter": "q_proj", "value": [0, 1]}, {"value": 7}], "layers.1.q_proj", 0.5, 0.5),
        ([{"filter": "q_proj", "value": [0, 1]}, {"value": 7}], "norm", 0.5, 7.0),
        ([{"filter": "*", "value": 1}, {"value": 7}], "norm", 0.5, 1.0),
    ],
)
def test_settings(setting: Any, name: str, t: float, value: float | None) -> None:
    assert parse_setting(setting, "here", False, []).evaluate(name, t, "float") == value


def test_truth_values_are_picked_and_whole_numbers_must_be_whole() -> None:
    setting = parse_setting([True, False], "here", False, [])
    assert [setting.evaluate("x", t, "bool") for t in (0.0, 0.9, 1.0)] == [True, True, False]
    with pytest.raises(BadInput, match=r"1\.5 is not an integer"):
        parse_setting([1, 2], "here", False, []).evaluate("x", 0.5, "int")


def test_the_most_specific_place_that_says_something_decides(models: Path) -> None:
    constant(models, "one", 1)
    constant(models, "two", 2)
    recipe = {
        "merge_method": "linear",
        "slices": [
            {
                "sources": [
                    {"model": "one", "layer_range": [0, 2], "parameters": {"weight": {"filter": "q_proj", "value": 0}}},
                    {"model": "two", "layer_range": [0, 2]},
                ],
                "parameters": {"weight": [{"filter": "mlp", "value": 3}]},
            }
        ],
        "parameters": {"weight": 1, "normalize": False},
    }
    tensors = open_text(models, recipe).tensors
    assert values_of(tensors["model.layers.0.self_attn.q_proj.weight"])[0, 0] == 0 * 1 + 1 * 2
    assert values_of(tensors["model.layers.0.mlp.up_proj.weight"])[0, 0] == 3 * 1 + 3 * 2
    assert values_of(tensors["model.norm.weight"])[0] == 3


def test_gradients_run_over_the_layers_and_start_elsewhere_with_their_first_value(models: Path) -> None:
    constant(models, "zero", 0)
    constant(models, "one", 1)
    recipe = (
        "merge_method: slerp\nbase_model: zero\nmodels: [{model: zero}, {model: one}]\nparameters: {t: [0.25, 0.75]}\n"
    )
    recipe = recipe.replace("slerp", "nearswap")
    text = "merge_method: linear\nmodels: [{model: one, parameters: {weight: [0.25, 0.75]}}]\nparameters: {normalize: false}\n"
    tensors = open_text(models, text).tensors
    found = {name: float(values_of(rows).reshape(-1)[0]) for name, rows in tensors.items()}
    assert found["model.layers.0.mlp.up_proj.weight"] == 0.25
    assert found["model.layers.1.mlp.up_proj.weight"] == 0.75
    assert found["lm_head.weight"] == found["model.norm.weight"] == found["model.embed_tokens.weight"] == 0.25


REFUSED = [
    ("merge_metod: linear", "merge_method is missing"),
    (LINEAR + "dtyp: bfloat16", "Did you mean 'dtype'"),
    (LINEAR.replace("weight: 1", "wieght: 1"), "unknown key 'wieght'\n  Did you mean 'weight'"),
    (LINEAR.replace("model: a", "modle: a"), "Did you mean 'model'"),
    (LINEAR.replace("linear", "dare-ties"), "unknown merge_method 'dare-ties'\n  Did you mean 'dare_ties'"),
    (LINEAR + "dtype: int7", "'int7' is not a float type"),
    (LINEAR + "slices: []\n", "models and slices given"),
    (LINEAR + "name: x\n", "unknown key 'name'"),
    (LINEAR + "dtype: float16\ndtype: float32\n", "duplicate key 'dtype'"),
    (LINEAR + "tokenizer_source: base\ntokenizer: {source: base}\n", "both tokenizer and tokenizer_source"),
    (LINEAR.replace("model: b", "model: a"), "a is listed twice"),
    (LINEAR.replace("weight: 3", "weight: -1"), "the weights 1, -1 sum to 0"),
    (LINEAR.replace("weight: 3", "weight: heavy"), "'heavy' is not a number"),
    (LINEAR.replace("model: b", "model: b+c+d"), "more than one '\\+'"),
    (LINEAR.replace("model: b", "model: b@x@y"), "more than one '@'"),
    (LINEAR.replace("{weight: 3}", "{}"), "parameter 'weight' of b has no value"),
    (LINEAR + "base_model: c\n", "parameter 'weight' of c has no value"),
    ("merge_method: slerp\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0.5}", "slerp needs a base_model"),
    ("merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]", "parameter 't' has no value"),
    (
        "merge_method: model_stock\nbase_model: a\nmodels: [{model: b}]",
        "at least 2 models beside the base, there are 1",
    ),
    ("merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 3]}]", "which has 2 layers"),
    ("merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [1, 1]}]", "contain no layers"),
    ("merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [2, 1]}]", "is negative"),
    (
        "merge_method: linear\nslices:\n- sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 1]}]",
        "different numbers of layers",
    ),
    ("[1, 2", "is not valid YAML at line"),
    ("# nothing", "holds no recipe"),
    ("- 1", "expected a mapping"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refusals_name_the_place_and_what_is_nearest(text: str, message: str, models: Path) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        open_text(models, text)
    assert refused.value.message.count("my-recipe.yml") == 1


def test_error_cases_of_the_reference_are_refused(
    reference: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(reference / "golden" / "merge")
    for case in json.loads(Path("error_cases.json").read_text()):
        recipe = tmp_path / f"{case['name']}.yml"
        recipe.write_text(yaml.safe_dump(case["config"]))
        with pytest.raises(StreamconvError) as caught:
            merging.open_recipe(recipe, sources.open_checkpoint)
        assert caught.value.exit_code in (64, 65, 66), case["name"]


def test_lenient_warns_of_unknown_keys_and_merges(models: Path) -> None:
    merged = open_text(models, LINEAR + "dtyp: bfloat16\n", lenient=True)
    assert any("'dtyp' is ignored" in text for text in merged.warnings)
    assert len(merged.tensors) == len(SHAPES)


def test_models_of_different_architectures_need_permission(models: Path) -> None:
    random_model(models / "other", 5, SHAPES, {**LAYERED, "architectures": ["QwenForCausalLM"]})
    text = LINEAR.replace("model: b", "model: other")
    with pytest.raises(BadInput, match="different architectures: a is LlamaForCausalLM, other is QwenForCausalLM"):
        open_text(models, text)
    assert len(open_text(models, text, allow_crimes=True).tensors) == len(SHAPES)


def test_a_shape_that_differs_is_refused_with_the_remedy(models: Path) -> None:
    random_model(models / "wide", 1, {**SHAPES, "model.norm.weight": (5,)}, LAYERED)
    with pytest.raises(BadInput, match=r"'model.norm.weight' has shape \[4\] in a and \[5\] in wide"):
        open_text(models, LINEAR.replace("model: b", "model: wide"))
    random_model(models / "more", 1, {**SHAPES, "model.embed_tokens.weight": (9, 4), "lm_head.weight": (9, 4)}, LAYERED)
    with pytest.raises(BadInput, match="the vocabularies differ\n  Add tokenizer"):
        open_text(models, LINEAR.replace("model: b", "model: more"))


def test_the_type_of_the_output_is_asked_for_or_holds_all_inputs(tmp_path: Path) -> None:
    for name, dtype in (("a", "BF16"), ("b", "BF16"), ("c", "F32")):
        random_model(tmp_path / name, 1, SHAPES, LAYERED, dtype)
    types = {
        "": "BF16", "dtype: float32": "F32", "dtype: float32\nout_dtype: float16": "F16", "dtype: torch.bfloat16": "BF16"
    }  # fmt: skip
    for line, dtype in types.items():
        merged = open_text(tmp_path, LINEAR + line + "\n")
        assert {rows.dtype for rows in merged.tensors.values()} == {dtype}
        assert merged.config["torch_dtype"] == {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype]
    mixed = open_text(tmp_path, LINEAR.replace("model: b", "model: c"))
    assert {rows.dtype for rows in mixed.tensors.values()} == {"F32"}


def test_what_is_merged_has_the_precision_of_dtype_whatever_it_is_stored_as(tmp_path: Path) -> None:
    for name, dtype in (("a", "BF16"), ("b", "BF16"), ("c", "F32")):
        random_model(tmp_path / name, ord(name), SHAPES, LAYERED, dtype)

    def merged(lines: str, other: str = "b") -> np.ndarray:
        text = LINEAR.replace("model: b", f"model: {other}") + lines
        return values_of(open_text(tmp_path, text).tensors["model.embed_tokens.weight"])

    exact = merged("dtype: float32\n")
    halves = merged("dtype: bfloat16\n")
    assert not np.array_equal(exact, halves)
    for lines in ("dtype: bfloat16\nout_dtype: float32\n", "out_dtype: float32\n"):
        np.testing.assert_array_equal(merged(lines), halves)
    np.testing.assert_array_equal(merged("dtype: bfloat16\nout_dtype: float16\n"), halves.astype("<f2").astype("<f4"))
    twice = merged("dtype: float16\nout_dtype: bfloat16\n", "c")
    assert not np.array_equal(twice, merged("dtype: float32\nout_dtype: bfloat16\n", "c"))


STAGES = """name: first
merge_method: linear
models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]
out_dtype: bfloat16
---
merge_method: task_arithmetic
base_model: a
models:
- {model: first, parameters: {weight: 2}}
- {model: second, parameters: {weight: 1}}
---
name: second
merge_method: linear
models: [{model: first, parameters: {weight: 1}}, {model: c, parameters: {weight: 3}}]
"""


def test_documents_of_one_file_are_stages_that_round_but_are_not_stored(models: Path) -> None:
    merged = open_text(models, STAGES)
    name = "model.layers.1.mlp.up_proj.weight"
    a, b, c = (values_of(sources.open_checkpoint(models / m).tensors[name]) for m in "abc")
    words = (((a + b) / 2).view("<u4").astype(np.uint64) + 0x7FFF).astype(np.uint64)
    odd = ((a + b) / 2).view("<u4") >> 16 & 1
    first = (((words + odd) >> 16) << 16).astype("<u4").view("<f4")
    second = (first + 3 * c) / 4
    np.testing.assert_allclose(
        values_of(merged.tensors[name]), a + 2 * (first - a) + (second - a), rtol=1e-5, atol=1e-6
    )
    assert {file.name for file in merged.inputs} == {"my-recipe.yml", "model.safetensors"}
    assert len(merged.inputs) == 4
    card = merged.text("README.md") or ""
    assert "name: second" in card
    assert '- "first"' not in card


def test_every_document_decides_the_identity_of_the_merge(models: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"

    def identity(text: str, seed: int = 0) -> str:
        return digest_of(open_text(models, text, seed=seed).tensors[name].identity())

    first = identity(STAGES)
    assert identity(STAGES) == first
    assert len({first, identity(STAGES.replace("weight: 3", "weight: 4")), identity(STAGES, seed=1)}) == 3
    assert identity(f"# a comment\n{STAGES}") == first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STAGES.replace("model: a, ", "model: second, "), "in a cycle: first → second → first"),
        (STAGES.replace("name: second", "name: first"), "two documents have the name 'first'"),
        (STAGES.replace("name: second\n", ""), "2 of 3 documents have no name"),
        (STAGES.replace("---\nmerge_method: task", "---\nname: last\nmerge_method: task"), "0 of 3 documents"),
        (STAGES.replace("weight: 3", "wait: 3"), "document 3: models.1..parameters: unknown key 'wait'"),
    ],
)
def test_documents_that_do_not_fit_together_are_refused(text: str, message: str, models: Path) -> None:
    with pytest.raises(BadInput, match=message):
        open_text(models, text)


def test_a_document_that_nothing_refers_to_is_mentioned(models: Path) -> None:
    merged = open_text(models, STAGES.replace("- {model: second, parameters: {weight: 1}}\n", ""))
    assert any("nothing refers to the documents second" in text for text in merged.warnings)


def test_plain_files_have_no_layers_and_take_the_first_value_of_gradients(tmp_path: Path) -> None:
    for name, value in (("x", 1.0), ("y", 3.0)):
        tensors = {
            "vae.layers.0.conv": np.full((2, 3, 3), value, "<f4"),
            "vae.layers.1.conv": np.full((2, 3, 3), value, "<f4"),
        }
        (write_model(tmp_path / name, tensors, {}) / "config.json").unlink()
    text = """merge_method: linear
models:
- {model: x/model.safetensors, parameters: {weight: [1, 0]}}
- {model: y/model.safetensors, parameters: {weight: 1}}
"""
    merged = open_text(tmp_path, text)
    assert {float(values_of(rows).mean()) for rows in merged.tensors.values()} == {2.0}
    assert {rows.shape for rows in merged.tensors.values()} == {(2, 3, 3)}
    assert not merged.config
    write_model(tmp_path / "z", {"vae.layers.0.conv": np.zeros((2, 3, 3), "<f4")}, {})
    with pytest.raises(BadInput, match=r"has no tensor for 'vae\.layers\.1\.conv'"):
        open_text(tmp_path, text.replace("y/", "z/"))


def test_experts_that_lie_one_by_one_and_in_one_tensor_are_told_apart(tmp_path: Path) -> None:
    at, config = "model.layers.0.mlp.experts.", {**CONFIG, "num_hidden_layers": 1}
    random_model(
        tmp_path / "a",
        0,
        {f"{at}{x}.{name}.weight": (4, 4) for x in (0, 1) for name in ("up_proj", "down_proj")},
        config,
    )
    random_model(tmp_path / "b", 1, {f"{at}gate_up_proj": (2, 8, 4), f"{at}down_proj": (2, 4, 4)}, config)
    for text, folder, form in (
        (LINEAR, "b", "in one tensor"),
        (LINEAR.replace("a,", "c,").replace("b,", "a,").replace("c,", "b,"), "a", "one by one"),
    ):
        with pytest.raises(BadInput, match=f"{folder} has no tensor for") as raised:
            open_text(tmp_path, text)
        assert f"{tmp_path / folder} has its experts {form}" in raised.value.hint
    random_model(tmp_path / "b", 1, {"model.layers.0.mlp.up_proj.weight": (4, 4)}, config)
    with pytest.raises(BadInput, match="b has no tensor for") as raised:
        open_text(tmp_path, LINEAR)
    assert raised.value.hint == "Merge models of the same structure."


def test_a_missing_recipe_or_model_is_named(models: Path) -> None:
    with pytest.raises(InputMissing, match=r"nothing\.yml does not exist"):
        merging.open_recipe(models / "nothing.yml", sources.open_checkpoint)
    with pytest.raises(InputMissing, match=r"\.yml: .*nowhere does not exist"):
        open_text(models, LINEAR.replace("model: b", "model: nowhere"))
