"""What lies in the place of a file: pointers, pages, texts, nothing, links that lead nowhere. Every reader says what it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from container_files import f32, write_safetensors

from streamconv import conversion, merging
from streamconv.conversion import Options
from streamconv.errors import BadInput, InputMissing, StreamconvError
from streamconv.sources import open_checkpoint
from streamconv.sources.placeholders import refuse_no_weights, refuse_placeholder

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7" * 64 + b"\nsize 1234567\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
DENIED = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'


def made(source: Path, output: Path, **options: object) -> None:
    conversion.prepare(source, output, Options(type="F16", **options))  # type: ignore[arg-type]


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "m"))


def as_weights(name: str) -> Callable[[Path, Path], Path]:
    def place(model: Path, tmp_path: Path) -> Path:
        (model / "model.safetensors").unlink()
        return model / name

    return place


PLACES: dict[str, Callable[[Path, Path], Path]] = {
    **{name: as_weights(name) for name in (
        "model.safetensors", "pytorch_model.bin", "model-00001-of-00001.safetensors", "model.safetensors.index.json",
    )},
    **{name: lambda model, _tmp, name=name: model / name for name in (  # type: ignore[misc]
        "config.json", "tokenizer.model", "tokenizer_config.json", "added_tokens.json",
    )},
}  # fmt: skip


@pytest.mark.parametrize("what", ["pointer", "page", "denied", "empty"])
@pytest.mark.parametrize("name", PLACES)
def test_what_is_not_the_file_itself_is_named_wherever_it_lies(
    model: Path, tmp_path: Path, name: str, what: str
) -> None:
    place = PLACES[name](model, tmp_path)
    data, words = {
        "pointer": (POINTER, "is a pointer of Git LFS, not the file itself, which has 1,234,567 bytes"),
        "page": (PAGE, "is a web page"), "denied": (DENIED, "is a web page"), "empty": (b"", "is empty"),
    }[what]  # fmt: skip
    place.unlink(missing_ok=True)
    place.write_bytes(data)
    with pytest.raises(BadInput) as refused:
        made(model, tmp_path / "x.gguf")
    assert f"{place.name}" in refused.value.message
    assert words in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin", "x.pth", "x.gguf"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (POINTER, "is a pointer of Git LFS"), (PAGE, "is a web page"), (b"", "is empty"),
        (b"Entry not found", "contains text and no weights; it begins with 'Entry not found'"),
        (b'{"error": "Invalid username or password."}', "contains text and no weights"),
        (("é" * 600).encode()[:-1], "contains text and no weights"),
    ],
)  # fmt: skip
def test_a_single_file_of_weights_that_is_none_is_named(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    for io in ("mmap", "pread"):
        with pytest.raises(BadInput) as refused:
            open_checkpoint(tmp_path / name, io)  # type: ignore[arg-type]
        assert words in refused.value.message


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.safetensors", b"PK\3\4" + bytes(99), "a zip archive"), ("x.safetensors", b"GGUF\3\0\0\0" + bytes(99), "a GGUF file"),
        ("x.gguf", b"PK\3\4" + bytes(99), "a zip archive"), ("x.bin", b"\x1f\x8b\x08" + bytes(99), "compressed with gzip"),
        ("x.gguf", b"\x28\xb5\x2f\xfd" + bytes(99), "compressed with zstd"), ("x.bin", b"lmgg" + bytes(99), "a GGML file"),
        ("x.gguf", b"tjgg\3\0\0\0" + bytes(99), "a GGML file"), ("x.safetensors", b"fmgg\1\0\0\0" + bytes(99), "a GGML file"),
    ],
)  # fmt: skip
def test_another_container_under_the_ending_of_weights_is_named(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=words):
        open_checkpoint(tmp_path / name)


def test_texts_for_people_may_be_pages_and_programs_may_be_empty(tmp_path: Path) -> None:
    refuse_placeholder(tmp_path / "README.md", PAGE)
    refuse_placeholder(tmp_path / "__init__.py", b"")
    refuse_placeholder(tmp_path / "NOTICE.txt", b"")
    for name, data in (("vocab.txt", PAGE), ("README.md", POINTER), ("vocab.txt", b"")):
        with pytest.raises(BadInput):
            refuse_placeholder(tmp_path / name, data)


@pytest.mark.parametrize("head", [b"\0\1\2\3\4\5\6\7\x08", bytes(range(256)), b"GGU", b"\x80\2}q\0."])
def test_what_is_no_text_is_left_to_the_reader(tmp_path: Path, head: bytes) -> None:
    refuse_no_weights(tmp_path / "x", head)


def test_pointers_in_the_place_of_recipes_matrices_and_lists_are_named(model: Path, tmp_path: Path) -> None:
    for name, use in {
        "r.yml": lambda path: merging.open_recipe(path, open_checkpoint),
        "i.dat": lambda path: made(model, tmp_path / "x.gguf", imatrix=(path,)),
        "types.txt": lambda path: made(model, tmp_path / "x.gguf", tensor_type_file=path),
    }.items():
        (tmp_path / name).write_bytes(POINTER)
        with pytest.raises(BadInput, match="is a pointer of Git LFS"):
            use(tmp_path / name)
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to("blobs/abc")
        with pytest.raises(InputMissing, match="is a link to blobs/abc, which does not exist"):
            use(tmp_path / name)


@pytest.mark.parametrize("output", ["out", "out.gguf"])
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json", "generation_config.json"]
)
def test_a_link_that_leads_nowhere_is_named_with_its_target(
    model: Path, tmp_path: Path, name: str, output: str
) -> None:
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(f"../../blobs/{name[:3]}")
    with pytest.raises(InputMissing) as refused:
        conversion.prepare(model, tmp_path / output, Options())
    assert f"m/{name} is a link to ../../blobs/{name[:3]}, which does not exist" in refused.value.message
    assert "cp -rL" in refused.value.hint


def test_links_that_lead_nowhere_among_shards_splits_and_adapters_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_safetensors(tmp_path / "model-00001-of-00002.safetensors", {"a": f32(1)})
    (tmp_path / "model-00002-of-00002.safetensors").symlink_to("gone")
    with pytest.raises(InputMissing, match=r"model-00002-of-00002\.safetensors is a link to gone"):
        open_checkpoint(tmp_path)
    (tmp_path / "away").symlink_to("nowhere")
    with pytest.raises(InputMissing, match="away is a link to nowhere"):
        open_checkpoint(tmp_path / "away")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").symlink_to("gone")
    with pytest.raises(StreamconvError, match=r"adapter_model\.safetensors is a link to gone"):
        merging.lora.open_adapter(adapter)


def test_a_card_that_leads_nowhere_is_no_matter(model: Path, tmp_path: Path) -> None:
    (model / "README.md").unlink(missing_ok=True)
    (model / "README.md").symlink_to("../../blobs/readme")
    made(model, tmp_path / "x.gguf")


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("place", ["cache", "folder"])
def test_a_download_that_did_not_finish_is_named_where_files_are_missing(
    model: Path, tmp_path: Path, place: str, index: bool
) -> None:
    folder = tmp_path / "models--org--m" / "snapshots" / "0a1b" if place == "cache" else tmp_path / "local"
    half = (
        tmp_path / "models--org--m" / "blobs"
        if place == "cache"
        else folder / ".cache" / "huggingface" / "download" / "x"
    )
    shutil.copytree(model, folder)
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    if index:
        (folder / "model.safetensors.index.json").write_text(
            '{"weight_map": {"a": "model-00001-of-00001.safetensors"}}'
        )
    with pytest.raises(InputMissing) as before:
        open_checkpoint(folder)
    half.mkdir(parents=True)
    (half / "5e1f.incomplete").write_bytes(b"half")
    with pytest.raises(InputMissing) as raised:
        open_checkpoint(folder)
    assert raised.value.message == before.value.message
    assert "files of a download that did not finish ('5e1f.incomplete')" in raised.value.hint
    assert "did not finish" not in before.value.hint
