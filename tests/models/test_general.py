"""general.* metadata: names, sizes, cards, sampling."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamconv.errors import BadInput
from streamconv.metadata import Metadata
from streamconv.models.general import general_metadata, parse_model_id, size_label, title
from streamconv.sources.checkpoint import Checkpoint

CASES = json.loads((Path(__file__).parent.parent / "data" / "general" / "names.json").read_text())


def folder(parent: Path, name: str = "hf", card: str = "", **files: Any) -> Checkpoint:
    path = parent / name
    path.mkdir()
    if card:
        (path / "README.md").write_text(card, encoding="utf-8")
    for stem, content in files.items():
        (path / f"{stem}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    config = files.get("config", {})
    return Checkpoint(path, {}, config, ())


def front(card: dict[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n# Title\n---\n"


def plain(metadata: Metadata) -> dict[str, Any]:
    return {key: value.value for key, value in metadata.items()}


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["model_id"])
def test_model_ids_come_apart_as_in_the_reference(case: dict[str, Any]) -> None:
    found = parse_model_id(case["model_id"], case["total_params"])
    for part in ("name", "organization", "basename", "finetune", "version", "size_label"):
        assert getattr(found, part) == case[part], part
    assert title(found.name or "") == case["title"]


@pytest.mark.parametrize("case", CASES["size_label"], ids=lambda case: case["label"])
def test_size_labels_are_those_of_the_reference(case: dict[str, Any]) -> None:
    assert size_label(case["total"], case["shared"], case["expert"], case["expert_count"]) == case["label"]


def test_random_names_come_apart_as_in_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    rng = random.Random(5)
    words = ["Llama", "gemma", "3", "v0.3", "7B", "8x7B", "A3B", "128k", "mini", "xxl", "Instruct", "it", "2507"]
    words += ["q4_k", "F16", "7b1", "0_5B", "lora", "é", "x", "1T", "iter3"]
    for _ in range(3000):
        name = rng.choice(["", "org/", "./"]) + "-".join(rng.choices(words, k=rng.randint(1, 6)))
        total = rng.choice([0, 7_000_000_000, 128_000, -5_000_000])
        found = parse_model_id(name, total)
        parts = (found.name, found.organization, found.basename, found.finetune, found.version, found.size_label)
        assert parts == gguf.Metadata.get_model_id_components(name, total), (name, total)


def random_card(rng: random.Random) -> dict[str, Any]:
    texts = ["name", "model_name", "author", "model_creator", "version", "organization", "description", "finetune"]
    texts += ["basename", "model_type", "size_label", "url", "doi", "uuid", "repo_url", "model_url"]
    texts += ["license", "license_name", "license_link"]
    card: dict[str, Any] = {key: rng.choice(["X-y", "mit", "7B", "v1.0"]) for key in texts if rng.random() < 0.2}
    for key in ("tags", "pipeline_tag", "languages", "language"):
        if rng.random() < 0.3:
            card[key] = rng.choice(["text-generation", ["en", "no"], None])
    origins = [
        "meta/Llama-3-8B-v1",
        "https://huggingface.co/google/gemma-2-9b",
        "http://x/a",
        "Some Model",
        {"name": "N"},
    ]
    for key in ("base_model", "base_models", "dataset", "datasets"):
        if rng.random() < 0.3:
            card[key] = rng.choice([rng.choice(origins[:4]), rng.sample(origins, 3), [], None])
    return card


@pytest.mark.parametrize("seed", range(60))
def test_cards_become_the_keys_of_the_gguf_package(tmp_path: Path, seed: int) -> None:
    gguf = pytest.importorskip("gguf")
    rng = random.Random(seed)
    sampling = {"top_k": 40, "top_p": 0.9, "temperature": 0.7, "penalty_repeat": 1.1, "mirostat": 2, "sequence": "kp"}
    generation = {key: value for key, value in sampling.items() if rng.random() < 0.5}
    config = rng.choice([{}, {"_name_or_path": "org/Base-7B-v2"}, {"_name_or_path": "/home/user/x"}])
    card = front(random_card(rng)) if rng.random() < 0.8 else ""
    name = rng.choice(["Llama-3-8B-Instruct", "hf", "My Model", "Qwen2.5-0.5B"])
    checkpoint = folder(tmp_path, name, card, config=config, generation_config=generation)
    total, model_name = rng.choice([0, 1_240_000_000, 7_000_000]), rng.choice([None, "Given"])

    want = gguf.Metadata.load(None, checkpoint.path, model_name, total)
    if want.size_label is None and total > 0:
        want.size_label = gguf.size_label(total, total, 0, 0)
    writer = gguf.GGUFWriter(None, "llama")
    writer.add_type("model")
    want.set_gguf_meta_model(writer)
    keys = {k: (v.type.name, v.value) for k, v in writer.kv_data[0].items() if k != "general.architecture"}
    found = general_metadata(checkpoint, model_name=model_name, n_params=total)
    assert [(k, (v.type, v.value)) for k, v in found.items()] == [
        (k, v) for k, v in keys.items() if v[1] not in ("", [])
    ]


def test_sampling_is_taken_from_generation_config(reference: Path) -> None:
    case = reference / "golden" / "gguf" / "llama3-bpe"
    want = json.loads((case / "f32.dump.json").read_text())["kv"]
    config = json.loads((case / "hf" / "config.json").read_text())
    found = general_metadata(Checkpoint(case / "hf", {}, config, ()), n_params=176_000)
    keys = [k for k in want if k.startswith("general.") and k not in ("general.architecture", "general.file_type")]
    assert list(found.values) == [k for k in keys if k != "general.quantization_version"]
    for key, value in found.items():
        assert value.type == want[key]["type"]
        stored = struct.unpack("f", struct.pack("f", value.value))[0] if value.type == "FLOAT32" else value.value
        assert stored == want[key]["value"]


def test_the_hub_spelling_of_the_repetition_penalty_is_known(tmp_path: Path) -> None:
    found = general_metadata(folder(tmp_path, generation_config={"repetition_penalty": 1.05}))
    assert found.get("general.sampling.penalty_repeat") == 1.05


def test_an_adapter_has_no_size(tmp_path: Path) -> None:
    found = general_metadata(folder(tmp_path, "adapter"), kind="adapter", n_params=5000)
    assert plain(found) == {"general.type": "adapter", "general.name": "Adapter"}


def test_a_mixture_is_labelled_by_its_experts(tmp_path: Path) -> None:
    found = general_metadata(folder(tmp_path), n_params=400, n_shared=50_000, n_expert=78_000, n_experts=4)
    assert found.get("general.size_label") == "4x128K"


def test_overrides_win_over_everything_and_the_given_name_over_them(tmp_path: Path) -> None:
    given = {
        "general.name": "From override", "general.author": "A", "general.tags": ["t"], "general.sampling.top_k": 3,
        "general.base_models": [{"name": "B", "author": "C"}], "general.url": "u",
    }  # fmt: skip
    card = front({"name": "Card", "author": "Z", "tags": ["z"], "base_model": "x/Y"})
    checkpoint = folder(tmp_path, card=card, generation_config={"top_k": 40})
    found = general_metadata(checkpoint, overrides=given, model_name="Mine")
    assert plain(found) == {
        "general.type": "model",
        "general.sampling.top_k": 3,
        "general.name": "Mine",
        "general.author": "A",
        "general.url": "u",
        "general.base_model.count": 1,
        "general.base_model.0.name": "B",
        "general.base_model.0.author": "C",
        "general.tags": ["t"],
    }
    with pytest.raises(BadInput, match=r"general\.datasets"):
        general_metadata(checkpoint, overrides={"general.datasets": "x"})


@pytest.mark.parametrize("card", ["---\na: [\n---\n", "---\n\ta: b: c\n---\n", "---\n'\\ud800'\n"])
def test_a_broken_card_is_ignored_with_a_note(tmp_path: Path, card: str) -> None:
    notes: list[str] = []
    assert general_metadata(folder(tmp_path, card=card), warnings=notes).get("general.name") == "Hf"
    assert [note for note in notes if "README.md" in note] or card.startswith("---\n'")


def test_cards_with_norwegian_and_tabs_are_read(tmp_path: Path) -> None:
    card = "---\nlanguage:\n- no\n- en\ndatasets:\n\t- a/b\nversion: 1.5\n---\n"
    found = general_metadata(folder(tmp_path, card=card))
    assert found.get("general.languages") == ["no", "en"]
    assert found.get("general.dataset.0.name") == "B"
    assert found.get("general.version") == "1.5"


def test_values_that_are_no_numbers_are_ignored_with_a_note(tmp_path: Path) -> None:
    notes: list[str] = []
    config = {"temperature": "hot", "top_k": True, "top_p": None, "min_p": 0.1}
    found = general_metadata(folder(tmp_path, generation_config=config), warnings=notes)
    assert [key for key in found.values if "sampling" in key] == ["general.sampling.min_p"]
    assert len(notes) == 2
    other = folder(tmp_path, "other", generation_config="{")
    assert general_metadata(other, warnings=notes).get("general.name") == "Other"
    assert "generation_config.json is ignored" in notes[-1]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_a_folder_name_that_is_no_text_still_gives_a_name_a_file_can_hold(tmp_path: Path) -> None:
    try:
        path = tmp_path / os.fsdecode(b"mod\xffel")
        path.mkdir()
    except OSError:
        pytest.skip("the file system refuses such names")
    general_metadata(Checkpoint(path, {}, {}, ())).get("general.name").encode("utf-8")
