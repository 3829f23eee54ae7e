"""Files beside the weights that are links: those of the model are followed, nothing else of this machine is copied."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from streamconv import conversion, merging
from streamconv.conversion import Options
from streamconv.errors import BadInput, InputMissing, StreamconvError
from streamconv.sources import open_checkpoint

SECRET = "-----BEGIN PRIVATE KEY----- 4f1c"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
#: whoever cannot be without a file is told; other texts are left out
NEEDED = [
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "modeling_x.py",
    "secret.json",
    "chat_template.jinja",
]
TEXTS = ["NOTICE.txt", "LICENSE", "README.md", "USE_POLICY.md", "notes"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Somebody's files, beside the folder of models."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    for name in ("id", "tools.jinja", "id.json"):
        (home / ".ssh" / name).write_text(SECRET)
    return home


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "models" / "m"))


def link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def converted(source: Path, output: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files of ``output`` but for weights, and the notes; what names them is read as a run would."""
    prepared = conversion.prepare(source, output, Options(type="BF16" if output.suffix == ".gguf" else "auto"))
    files = {f.path.name: bytes(f.header) for f in prepared.plan.files}
    return files, prepared.warnings


def merged(source: Path, tmp_path: Path) -> tuple[dict[str, bytes], list[str]]:
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        json.dumps({"merge_method": "linear", "models": [{"model": str(source), "parameters": {"weight": 1}}]})
    )
    return converted(recipe, tmp_path / "merged")


def holds_secret(files: dict[str, bytes]) -> bool:
    return any(SECRET.encode() in data for data in files.values())


@pytest.mark.parametrize("how", ["folder", "merge"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_a_link_to_elsewhere_is_left_out_with_a_note(
    name: str, how: str, model: Path, home: Path, tmp_path: Path
) -> None:
    link(model / name, home / ".ssh" / "id")
    files, notes = merged(model, tmp_path) if how == "merge" else converted(model, tmp_path / "out")
    assert not holds_secret(files)
    assert [n for n in notes if name in n and "left out" in n and str(home / ".ssh" / "id") in n]


@pytest.mark.parametrize("name", NEEDED)
def test_a_file_of_the_model_that_is_a_link_to_elsewhere_is_refused_by_name(
    name: str, model: Path, home: Path, tmp_path: Path
) -> None:
    link(model / name, home / ".ssh" / "id.json")
    with pytest.raises(BadInput, match=f"m/{name} is a link to {home}") as raised:
        converted(model, tmp_path / "out")
    assert "put a copy in place of the link" in raised.value.hint


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "tokenizer_config.json"])
@pytest.mark.parametrize("output", ["out", "out.gguf"])
def test_what_is_needed_is_not_read_from_elsewhere(
    name: str, output: str, model: Path, tiny_model: Path, tmp_path: Path
) -> None:
    link(model / name, tiny_model.resolve() / name)
    with pytest.raises(BadInput, match=f"m/{name} is a link to"):
        converted(model, tmp_path / output)


def test_a_card_that_is_a_link_to_elsewhere_gives_no_metadata(model: Path, home: Path, tmp_path: Path) -> None:
    (home / "card").write_text(f"---\nname: {SECRET}\n---\n")
    link(model / "README.md", home / "card")
    files, notes = converted(model, tmp_path / "out.gguf")
    assert not holds_secret(files)
    assert any("README.md" in note and "left out" in note for note in notes)


@pytest.mark.parametrize("how", ["folder", "merge"])
def test_a_folder_of_templates_that_is_a_link_to_elsewhere_is_not_copied(
    how: str, model: Path, home: Path, tmp_path: Path
) -> None:
    (model / "additional_chat_templates").symlink_to(home / ".ssh")
    with pytest.raises(BadInput, match=r"additional_chat_templates/.* is a link to"):
        merged(model, tmp_path) if how == "merge" else converted(model, tmp_path / "out")
    (home / ".ssh" / "tools.jinja").unlink()
    (home / ".ssh" / "id.json").unlink()
    files, notes = merged(model, tmp_path) if how == "merge" else converted(model, tmp_path / "out")
    assert not holds_secret(files)
    assert any("additional_chat_templates/id" in note for note in notes)


def test_chains_of_links_and_ways_through_the_folder_are_followed_to_their_end(
    model: Path, home: Path, tmp_path: Path
) -> None:
    (model / "a").mkdir()
    link(model / "a" / "step", home / ".ssh" / "id")
    link(model / "one.txt", model / "a" / "step")
    link(model / "two.txt", model / "one.txt")
    link(model / "three.txt", Path("a/../../../home/.ssh/id"))
    link(model / "up", home / ".ssh")
    link(model / "four.txt", Path("up/id"))
    files, notes = converted(model, tmp_path / "out")
    assert not holds_secret(files)
    assert not files.keys() & {"one.txt", "two.txt", "three.txt", "four.txt"}
    assert "and 1 more" in " ".join(notes)


def test_links_within_the_folder_are_followed_whatever_leads_to_the_folder(model: Path, tmp_path: Path) -> None:
    (model / "texts").mkdir()
    (model / "texts" / "n").write_text("mine")
    link(model / "NOTICE.txt", Path("texts/n"))
    link(model / "absolute.txt", model / "texts" / "n")
    (tmp_path / "way").symlink_to(model.parent)
    for source in (model, tmp_path / "way" / "m"):
        files, notes = converted(source, tmp_path / "out")
        assert files["NOTICE.txt"] == files["absolute.txt"] == b"mine"
        assert notes == []


def in_cache(model: Path, snapshot: Path, blobs: Path) -> Path:
    """The files of ``model`` as links in ``snapshot`` to ``blobs``."""
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in model.iterdir() if p.is_file())):
        blob = blobs / f"{number:040x}"
        shutil.copyfile(path, blob)
        link(snapshot / path.name, Path(os.path.relpath(blob, snapshot)))
    return snapshot


Make = Callable[[Path, Path], Path]
CACHES: dict[str, Make] = {
    "huggingface_hub": lambda m, root: in_cache(
        m, root / "models--o--n" / "snapshots" / COMMIT, root / "models--o--n" / "blobs"
    ),
    "a branch as a commit": lambda m, root: in_cache(
        m, root / "models--o--n" / "snapshots" / "main", root / "models--o--n" / "blobs"
    ),
    "our store": lambda m, root: in_cache(m, root / "o--n" / COMMIT / "n", root / "o--n" / "blobs"),
    "our store beside the other cache": lambda m, root: in_cache(
        m, root / "o--n" / COMMIT / "n", root / "other" / "models--o--n" / "blobs"
    ),
}


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("output", ["out", "out.gguf"])
def test_links_of_the_hubs_caches_are_followed(kind: str, output: str, model: Path, home: Path, tmp_path: Path) -> None:
    wanted, _ = converted(model, tmp_path / output)
    (model / "NOTICE.txt").write_text("mine")
    source = CACHES[kind](model, tmp_path / "cache")
    link(source / "LICENSE", home / ".ssh" / "id")
    files, notes = converted(source, tmp_path / output)
    assert not holds_secret(files)
    assert [note for note in notes if "LICENSE" in note]
    if output == "out":
        assert files["NOTICE.txt"] == b"mine"
        assert wanted.keys() <= files.keys()


@pytest.mark.parametrize("kind", ["huggingface_hub", "our store"])
def test_blobs_that_are_a_link_themselves_are_not_followed(kind: str, model: Path, home: Path, tmp_path: Path) -> None:
    source = CACHES[kind](model, tmp_path / "cache")
    blobs = next((tmp_path / "cache").rglob("blobs"))
    blobs.rename(home / "blobs")
    blobs.symlink_to(home / "blobs")
    with pytest.raises(BadInput, match=r"config\.json is a link to"):
        converted(source, tmp_path / "out")


def test_blobs_of_another_model_are_not_followed(model: Path, tmp_path: Path) -> None:
    source = CACHES["huggingface_hub"](model, tmp_path / "cache")
    other = tmp_path / "cache" / "models--o--private" / "blobs"
    other.mkdir(parents=True)
    (other / "0").write_text(SECRET)
    link(source / "NOTICE.txt", other / "0")
    files, notes = converted(source, tmp_path / "out")
    assert not holds_secret(files)
    assert any("NOTICE.txt" in note for note in notes)


@pytest.mark.parametrize("output", ["out", "out.gguf"])
def test_weights_may_be_links_to_anywhere(output: str, model: Path, home: Path, tmp_path: Path) -> None:
    shutil.move(model / "model.safetensors", home / "big")
    link(model / "model.safetensors", home / "big")
    _, notes = converted(model, tmp_path / output)
    assert not [note for note in notes if "link" in note or "safetensors" in note]


def test_an_adapters_files_are_its_own(model: Path, home: Path, tmp_path: Path) -> None:
    from streamconv.merging.lora import open_adapter

    folder = tmp_path / "adapter"
    folder.mkdir()
    (home / "config").write_text(json.dumps({"peft_type": "LORA", "r": 1}))
    shutil.copyfile(model / "model.safetensors", folder / "adapter_model.safetensors")
    link(folder / "adapter_config.json", home / "config")
    with pytest.raises(BadInput, match=r"adapter_config\.json is a link to"):
        open_adapter(folder)


def test_a_single_file_has_its_folder(model: Path, home: Path, tmp_path: Path) -> None:
    link(model / "NOTICE.txt", home / ".ssh" / "id")
    files, notes = converted(model / "model.safetensors", tmp_path / "out")
    assert not holds_secret(files)
    assert any("NOTICE.txt" in note for note in notes)
    link(model / "config.json", home / ".ssh" / "id")
    with pytest.raises(BadInput, match=r"config\.json is a link to"):
        open_checkpoint(model / "model.safetensors")


def test_a_tokenizer_that_is_no_file_is_none(model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.model").unlink()
    os.mkfifo(model / "tokenizer.model")
    os.mkfifo(model / "NOTICE.txt")
    link(model / "zero.txt", Path("/dev/zero"))
    files, _ = converted(model, tmp_path / "out")
    assert not files.keys() & {"tokenizer.model", "NOTICE.txt", "zero.txt"}
    with pytest.raises(InputMissing, match=r"tokenizer\.model"):
        converted(model, tmp_path / "out.gguf")


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)], ids=["pipe", "folder", "zero"]
)
def test_a_recipe_or_configuration_that_is_no_file_is_refused_at_once(
    make: Callable[[Path], None], model: Path, tmp_path: Path
) -> None:
    make(tmp_path / "r.yml")
    with pytest.raises(BadInput, match=r"r\.yml is not a regular file"):
        merging.open_recipe(tmp_path / "r.yml", open_checkpoint)
    for name in ("config.json", "model.safetensors.index.json"):
        (model / name).unlink(missing_ok=True)
        make(model / name)
        with pytest.raises(StreamconvError, match=f"{name} is (not a regular file|a link to /dev/zero)"):
            open_checkpoint(model)
        (model / name).rmdir() if (model / name).is_dir() else (model / name).unlink()
        (model / "config.json").write_text("{}")


def test_what_exists_in_memory_only_has_no_links(model: Path) -> None:
    found = replace(open_checkpoint(model), side={"NOTICE": b"x"})
    assert (found.side_names(), found.side_file("NOTICE")) == (["NOTICE"], b"x")
