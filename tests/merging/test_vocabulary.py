"""Vocabularies of merges: recorded results of mergekit by token, and the rules it has no record of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from merge_cases import open_text, values_of
from small_models import read_safetensors, write_safetensors

from streamconv import conversion
from streamconv.errors import BadInput, InputMissing, UsageError
from streamconv.merging.vocabulary.templates import BUILTIN
from streamconv.sources.checkpoint import Checkpoint

DATA = Path(__file__).resolve().parents[1] / "data" / "merging" / "vocabulary.npz"
EMBEDDING = "model.embed_tokens.weight"
WIDTH = 4
GOLDEN = ("tok_union_linear", "tok_base_linear", "tok_token_policies", "tok_union_other_bpe")


def model(
    folder: Path,
    tokens: list[str],
    added: tuple[str, ...] = (),
    n_rows: int = 0,
    dtype: str = "F32",
    config: Mapping[str, Any] = {},
) -> np.ndarray:
    """A model whose row ``i`` is a function of folder name and ``i``; returns its embedding."""
    folder.mkdir(parents=True)
    n = len(tokens) + len(added)
    seed = sum(map(ord, folder.name))
    rows = np.random.default_rng(seed).integers(-64, 64, (n_rows or n, WIDTH)).astype("<f4")
    words = rows if dtype == "F32" else (rows.view("<u4") >> 16).astype("<u2")
    write_safetensors(folder / "model.safetensors", {EMBEDDING: (dtype, words)})
    settings = {"architectures": ["LlamaForCausalLM"], "vocab_size": n_rows or n, "tie_word_embeddings": True, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    entries = [{"id": len(tokens) + k, "content": t, "special": True, "normalized": False} for k, t in enumerate(added)]
    vocabulary = {text: index for index, text in enumerate(tokens)}
    tokenizer = {"added_tokens": entries, "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text("{}")
    return rows


def merge(folder: Path, tokenizer: Any, *names: str, base: str = "", **more: Any) -> Checkpoint:
    """The plain mean of the models."""
    recipe: dict[str, Any] = {"merge_method": "linear", "parameters": {"weight": 1}, **more}
    recipe["models"] = [{"model": name} for name in names]
    if tokenizer is not None:
        recipe["tokenizer"] = tokenizer
    if base:
        recipe["base_model"] = base
    return open_text(folder, recipe)


def ids_of(checkpoint: Checkpoint) -> dict[str, int]:
    tokenizer = checkpoint.json("tokenizer.json")
    assert tokenizer is not None
    return {**tokenizer["model"]["vocab"], **{e["content"]: e["id"] for e in tokenizer["added_tokens"]}}


def by_token(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    rows = values_of(checkpoint.tensors[EMBEDDING])
    return {text: rows[index] for text, index in ids_of(checkpoint).items()}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded models, with the first columns of their embeddings."""
    root = tmp_path_factory.mktemp("recorded")
    with np.load(DATA) as file:
        for key in file.files:
            name, part = key.split(":")
            folder = root / "inputs" / "tok" / name
            if name in GOLDEN:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            if part != "rows":
                (folder / part).write_bytes(file[key].tobytes())
                continue
            write_safetensors(folder / "model.safetensors", {EMBEDDING: ("F32", file[key])})
            (folder / "config.json").write_text(json.dumps({"vocab_size": len(file[key]), "eos_token_id": 1}))
    return root


@pytest.mark.parametrize("case", GOLDEN)
def test_rows_are_those_of_mergekit_token_by_token(case: str, recorded: Path) -> None:
    with np.load(DATA) as file:
        want, added = file[f"{case}:rows"], json.loads(file[f"{case}:added"].tobytes())
        recipe = file[f"{case}:config.yml"].tobytes().decode()
    found = open_text(recorded, recipe)
    rows = values_of(found.tensors[EMBEDDING])
    assert rows.shape == want.shape
    assert found.config["vocab_size"] == len(want)
    ids = ids_of(found)
    expected = {e["content"]: e["id"] for e in added}
    assert expected.keys() <= ids.keys()
    order = np.arange(len(want))
    for text, index in expected.items():
        order[ids[text]] = index
    np.testing.assert_allclose(rows, want[order], rtol=0, atol=1e-6 * np.abs(want).max())
    tokenizer = found.json("tokenizer.json")
    assert tokenizer is not None
    flags = {e["content"]: {k: v for k, v in e.items() if k != "id"} for e in tokenizer["added_tokens"]}
    assert flags == {e["content"]: {k: v for k, v in e.items() if k != "id"} for e in added}


@pytest.mark.parametrize("case", [*GOLDEN, "tok_model_source"])
def test_whole_merges_have_the_tensors_of_mergekit(case: str, reference: Path) -> None:
    root = reference / "golden" / "merge"
    found = open_text_in(root, case)
    want = read_safetensors(root / case / "expected" / "model.safetensors")
    theirs = json.loads((root / case / "expected" / "tokenizer.json").read_text())["added_tokens"]
    ids = ids_of(found)
    assert set(found.tensors) == set(want)
    for name, (_, words) in want.items():
        rows = values_of(found.tensors[name])
        order = np.arange(len(words))
        if rows.ndim == 2 and len(words) > 100:
            for entry in theirs:
                order[ids[entry["content"]]] = entry["id"]
        np.testing.assert_allclose(rows, words[order], rtol=0, atol=2e-6 * np.sqrt(np.mean(words**2)), err_msg=name)


def open_text_in(root: Path, case: str) -> Checkpoint:
    from streamconv import merging, sources

    return merging.open_recipe(root / case / "config.yml", lambda text: sources.open_checkpoint(root / text))


def test_a_union_takes_the_own_row_else_that_of_the_only_owner_the_base_or_the_mean(tmp_path: Path) -> None:
    a = model(tmp_path / "a", ["x", "y"])
    b = model(tmp_path / "b", ["y", "x"], ("<b>", "<bc>"))
    c = model(tmp_path / "c", ["x", "y"], ("<bc>",))
    found = by_token(merge(tmp_path, {"source": "union"}, "a", "b", "c", base="a"))
    np.testing.assert_array_equal(found["x"], np.mean([a[0], b[1], c[0]], axis=0, dtype="f4"))
    np.testing.assert_array_equal(found["<b>"], b[2])
    np.testing.assert_allclose(found["<bc>"], (b[3] + c[2] + (b[3] + c[2]) / 2) / 3, rtol=1e-6)
    base = by_token(merge(tmp_path, {"source": "union"}, "a", "b", "c", base="c"))
    np.testing.assert_allclose(base["<bc>"], (b[3] + c[2] + c[2]) / 3, rtol=1e-6)


def test_ids_of_the_base_stay_and_the_largest_vocabulary_keeps_most_of_its_own(tmp_path: Path) -> None:
    model(tmp_path / "a", ["x", "y"])
    model(tmp_path / "b", ["x", "y"], ("<2>",))
    model(tmp_path / "c", ["x", "y"], ("<1>", "<2>", "<3>"))
    assert ids_of(merge(tmp_path, {"source": "union"}, "a", "b", "c")) == {"x": 0, "y": 1, "<1>": 2, "<2>": 3, "<3>": 4}


def test_padding_rows_stay_unless_padding_is_asked_for(tmp_path: Path) -> None:
    a = model(tmp_path / "a", ["x", "y"], n_rows=6)
    b = model(tmp_path / "b", ["x", "y"], n_rows=6)
    kept = merge(tmp_path, {"source": "base"}, "a", "b", base="a")
    np.testing.assert_array_equal(values_of(kept.tensors[EMBEDDING]), (a + b) / 2)
    padded = merge(tmp_path, {"source": "base", "pad_to_multiple_of": 4}, "a", "b", base="a")
    rows = values_of(padded.tensors[EMBEDDING], 1)
    assert rows.shape == (4, WIDTH)
    assert padded.config["vocab_size"] == 4
    mean = (a[:2].mean(axis=0) + b[:2].mean(axis=0)) / 2
    np.testing.assert_allclose(rows[2:], [mean, mean], rtol=1e-6)


def test_a_padding_row_that_another_model_lacks_is_the_bases(tmp_path: Path) -> None:
    a = model(tmp_path / "a", ["x", "y"], n_rows=4)
    model(tmp_path / "b", ["x", "y"])
    rows = values_of(merge(tmp_path, {"source": "union"}, "a", "b", base="a").tensors[EMBEDDING])
    np.testing.assert_array_equal(rows[2:], a[2:])


def test_equal_vocabularies_are_passed_through_untouched(tmp_path: Path) -> None:
    model(tmp_path / "a", ["x", "y"], n_rows=8, dtype="BF16")
    recipe = {"merge_method": "passthrough", "models": [{"model": "a"}], "tokenizer": {"source": "union"}}
    rows = open_text(tmp_path, recipe).tensors[EMBEDDING]
    assert rows.dtype == "BF16"
    assert rows.stored(0, 8) is not None


def test_a_row_of_another_precision_widens_the_model_that_takes_it(tmp_path: Path) -> None:
    model(tmp_path / "a", ["x"], dtype="BF16")
    model(tmp_path / "b", ["x"], ("<b>",))
    assert merge(tmp_path, {"source": "union"}, "a", "b", base="a").tensors[EMBEDDING].dtype == "F32"


def test_rows_do_not_depend_on_how_they_are_cut(tmp_path: Path) -> None:
    model(tmp_path / "a", [f"t{i}" for i in range(40)])
    model(tmp_path / "b", [f"t{(i * 7) % 41}" for i in range(41)], ("<b>",))
    rows = merge(tmp_path, {"source": "union", "pad_to_multiple_of": 64}, "a", "b").tensors[EMBEDDING]
    whole = values_of(rows)
    for step in (1, 7, 63):
        np.testing.assert_array_equal(values_of(rows, step), whole)


def test_rules_choose_rows(tmp_path: Path) -> None:
    a = model(tmp_path / "a", ["x", "y"])
    b = model(tmp_path / "b", ["x", "y"], ("<b>",))
    other = model(tmp_path / "other", ["q", "<b>", "new"])
    rules = {
        "x": {"source": {"kind": "model_token", "model": "other", "token": "q"}, "force": True},
        "y": {"source": {"kind": "zero"}, "force": True},
        "<b>": {"source": "other"},
        "new": {"source": {"kind": "model_token", "model": "other", "token_id": 2}},
        "none": {"source": {"kind": "zero"}},
    }
    merged = merge(tmp_path, {"source": "union", "tokens": rules}, "a", "b", base="a")
    found = by_token(merged)
    assert set(found) == {"x", "y", "<b>", "new", "none"}  # nothing else of a model that only a rule names
    np.testing.assert_array_equal(found["x"], other[0])
    np.testing.assert_array_equal(found["y"], np.zeros(WIDTH))
    np.testing.assert_array_equal(found["<b>"], (other[1] + b[2]) / 2)
    np.testing.assert_array_equal(found["new"], other[2])
    np.testing.assert_array_equal(found["none"], np.zeros(WIDTH))
    assert a.shape == (2, WIDTH)
    assert not any("not one of the models" in text for text in merged.warnings)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"source": "b"}, "b has no token 'zzz'"),
        ({"source": {"kind": "model_token", "model": "b", "token": "w"}}, "b has no token 'w'"),
        ({"source": {"kind": "model_token", "model": "b", "token_id": 99}}, "b has no row 99"),
    ],
)
def test_rules_that_name_what_is_not_there_are_refused(rule: Any, message: str, tmp_path: Path) -> None:
    model(tmp_path / "a", ["x"])
    model(tmp_path / "b", ["x"])
    with pytest.raises(BadInput, match=message):
        merge(tmp_path, {"source": "union", "tokens": {"zzz": rule}}, "a", "b")


def test_a_token_without_any_row_is_zero_and_said(tmp_path: Path) -> None:
    model(tmp_path / "a", ["x"])
    found = merge(tmp_path, {"source": "union", "tokens": {"new": {}}}, "a")
    np.testing.assert_array_equal(by_token(found)["new"], np.zeros(WIDTH))
    assert any("'new' have no row in any of the models" in text for text in found.warnings)


def test_tokens_beyond_the_rows_are_left_out_of_the_tokenizer(tmp_path: Path) -> None:
    model(tmp_path / "a", ["x", "y"], ("<image>",), n_rows=2)
    (tmp_path / "a" / "tokenizer_config.json").write_text(
        json.dumps({"image_token": "<image>", "extra_special_tokens": {"image_token": "<image>"}, "eos_token": "y"})
    )
    model(tmp_path / "b", ["x", "y"])
    found = merge(tmp_path, {"source": "base"}, "a", "b", base="a")
    assert ids_of(found) == {"x": 0, "y": 1}
    assert found.tensors[EMBEDDING].shape == (2, WIDTH)
    assert found.json("tokenizer_config.json") == {"extra_special_tokens": {}, "eos_token": "y"}
    assert any("beyond the 2 rows" in text for text in found.warnings)


def test_the_vocabulary_of_another_model_brings_its_ends_along(tmp_path: Path) -> None:
    model(tmp_path / "a", ["x", "</s>"], config={"eos_token_id": 1, "image_token_id": 0})
    (tmp_path / "a" / "generation_config.json").write_text('{"eos_token_id": [1, 0], "temperature": 0.5}')
    b = model(tmp_path / "b", ["</s>", "x", "<end>"], config={"eos_token_id": 2})
    found = merge(tmp_path, {"source": "b"}, "a", "b", base="a")
    assert found.config["vocab_size"] == 3
    assert found.config["eos_token_id"] == 2
    assert found.config["image_token_id"] == 1  # where 'x' is now
    assert found.json("generation_config.json") == {"eos_token_id": 2, "temperature": 0.5}
    np.testing.assert_array_equal(values_of(found.tensors[EMBEDDING])[2], b[2])


def test_heads_and_output_biases_follow(tmp_path: Path) -> None:
    for name, tokens in (("a", ["x", "y"]), ("b", ["y", "x", "z"])):
        rows = model(tmp_path / name, tokens)
        tensors = {
            EMBEDDING: ("F32", rows),
            "lm_head.weight": ("F32", -rows),
            "lm_head.bias": ("F32", rows[:, 0].copy()),
        }
        write_safetensors(tmp_path / name / "model.safetensors", tensors)
    found = merge(tmp_path, {"source": "union"}, "a", "b")
    rows = values_of(found.tensors[EMBEDDING])
    np.testing.assert_array_equal(values_of(found.tensors["lm_head.weight"]), -rows)
    np.testing.assert_array_equal(values_of(found.tensors["lm_head.bias"]), rows[:, 0])


def test_tokens_are_added_beside_a_sentencepiece_model_too(tmp_path: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "a")
    weights = read_safetensors(tiny_model / "model.safetensors")
    for name in ("a", "b"):
        folder = tmp_path / name
        shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    (tmp_path / "b" / "added_tokens.json").write_text('{"<think>": 2048}')
    grown = dict(weights)
    kind, words = grown[EMBEDDING]
    grown[EMBEDDING] = (kind, np.concatenate([words, words[:1]]))
    write_safetensors(tmp_path / "b" / "model.safetensors", grown)
    recipe = {
        "merge_method": "linear",
        "parameters": {"weight": 1},
        "base_model": "a",
        "tokenizer": {"source": "union"},
    }
    found = open_text(tmp_path, {**recipe, "models": [{"model": "a"}, {"model": "b"}]})
    assert found.json("added_tokens.json") == {"<think>": 2048}
    config = found.json("tokenizer_config.json")
    assert config is not None
    assert config["added_tokens_decoder"]["2048"]["content"] == "<think>"
    assert found.side_bytes("tokenizer.model") == (tiny_model / "tokenizer.model").read_bytes()
    assert found.tensors[EMBEDDING].shape[0] == 2049
    assert "generation_config.json" in found.side_names()


def test_vocabularies_of_other_sizes_are_refused_with_the_remedy(tmp_path: Path) -> None:
    model(tmp_path / "a", ["x", "y"])
    model(tmp_path / "b", ["x", "y"], ("<b>",))
    with pytest.raises(BadInput, match=r"tokenizer: \{source: union\}"):
        merge(tmp_path, None, "a", "b")


def test_rows_that_mean_other_tokens_are_warned_about(tmp_path: Path) -> None:
    model(tmp_path / "a", ["x", "y"])
    model(tmp_path / "b", ["y", "x"])
    assert any(
        "2 rows of b belong to other tokens than in a" in text for text in merge(tmp_path, None, "a", "b").warnings
    )
    model(tmp_path / "c", ["x", "y"])
    assert not merge(tmp_path, None, "a", "c").warnings


def test_a_model_without_a_tokenizer_is_refused_where_tokens_are_matched(tmp_path: Path) -> None:
    model(tmp_path / "a", ["x"])
    model(tmp_path / "b", ["x"])
    (tmp_path / "b" / "tokenizer.json").unlink()
    with pytest.raises(InputMissing, match=r"b has no tokenizer\.json"):
        merge(tmp_path, {"source": "union"}, "a", "b")
    found = merge(tmp_path, None, "b", "a")  # the donor has none, so the next one gives it
    assert "tokenizer.json" in found.side_names()


@pytest.mark.parametrize("template", ["auto", *BUILTIN, "{% for m in messages %}{{ m.content }}{% endfor %}"])
def test_chat_templates_are_written_and_no_other_is_left(template: str, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        model(tmp_path / name, ["x"])
        (tmp_path / name / "tokenizer_config.json").write_text('{"chat_template": "old", "eos_token": "x"}')
    (tmp_path / "b" / "chat_template.jinja").write_text("{{ newer }}")
    (tmp_path / "c" / "chat_template.jinja").write_text("{{ newer }}")
    found = merge(tmp_path, None, "a", "b", "c", chat_template=template)
    assert found.text("chat_template.jinja") == (
        "{{ newer }}" if template == "auto" else BUILTIN.get(template, template)
    )
    assert found.json("tokenizer_config.json") == {"eos_token": "x"}
    assert found.json("tokenizer.json") is not None


def test_a_chat_template_that_is_neither_name_nor_jinja_is_refused(tmp_path: Path) -> None:
    model(tmp_path / "a", ["x"])
    with pytest.raises(UsageError, match="'chatlm' is neither a builtin template nor Jinja"):
        merge(tmp_path, None, "a", chat_template="chatlm")


def test_a_merged_vocabulary_reaches_the_written_folder(tmp_path: Path) -> None:
    model(tmp_path / "a", ["x", "y"])
    model(tmp_path / "b", ["x", "y"], ("<b>",))
    models = [{"model": str(tmp_path / name)} for name in ("a", "b")]
    recipe = {"merge_method": "linear", "models": models, "parameters": {"weight": 1}, "tokenizer": {"source": "union"}}
    (tmp_path / "r.yml").write_text(yaml.safe_dump(recipe))
    options = conversion.Options(threads=1)
    prepared = conversion.prepare(tmp_path / "r.yml", tmp_path / "out", options)
    from streamconv import progress

    conversion.execute(prepared, options, progress.reporter(quiet=True, as_json=False))
    written = read_safetensors(tmp_path / "out" / "model.safetensors")
    assert written[EMBEDDING][1].shape == (3, WIDTH)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 3
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text())["added_tokens"][0]["content"] == "<b>"


def test_a_tokenizer_comes_from_a_model_that_has_one_and_not_in_pieces(tmp_path: Path) -> None:
    for name in ("a", "b"):
        model(tmp_path / name, ["x", "y"])
    for path in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "a" / path).unlink()
    (tmp_path / "a" / "chat_template.jinja").write_text("{{ messages }} of the first")
    merged = merge(tmp_path, None, "a", "b")
    assert merged.side_bytes("tokenizer.json") == (tmp_path / "b" / "tokenizer.json").read_bytes()
    assert merged.side_bytes("tokenizer_config.json") == b"{}"
    assert "chat_template.jinja" not in merged.side_names()
