"""JSON of files: what would take too much is refused before it is parsed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from container_files import safetensors_bytes

from streamconv.errors import BadInput
from streamconv.sources import open_checkpoint
from streamconv.sources.checkpoint import read_object
from streamconv.sources.hostile_json import MAX_JSON_BYTES, MAX_TOKENIZER_BYTES, NotJson, parse_json, texts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a":[' + b"{}," * 1_500_000 + b"{}]}", "describes more than any model needs"),
        (b"[" + b"[]," * 2_000_000 + b"[]]", "describes more than any model needs"),
        (b'{"a":"\xf0\x9f\x98\x80' + b"a" * (21 << 20) + b'"}', "describes more than any model needs"),
        (b" " * (MAX_JSON_BYTES + 1), "over the limit"),
        (b"[" * 100_000, "nests too deep"),
        (b"[1,", "is not valid JSON"),
        (b"[" * 101 + b"]" * 101, "nests too deep"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nests too deep"),
        (b"7" * 5000, "has a number of 5000 digits"),
        (b'{"a": [1, -' + b"7" * 301 + b"]}", "has a number of 302 digits"),
        (b"\xff", "is not UTF-8 at byte 0"),
    ],
)
def test_texts_that_are_none_or_take_too_much_are_refused(text: bytes, message: str) -> None:
    with pytest.raises(NotJson, match=message):
        parse_json(text)


def test_the_header_of_a_large_model_is_far_from_the_limits(tmp_path: Path) -> None:
    entry = {"dtype": "BF16", "shape": [0, 4096], "data_offsets": [0, 0]}
    header = {f"model.layers.{i // 500}.mlp.experts.{i % 500}.gate_proj.weight": entry for i in range(20_000)}
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(header))
    assert len(open_checkpoint(path).tensors) == 20_000


def test_tokenizers_may_be_larger_and_yet_have_a_limit(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes({}))
    (tmp_path / "config.json").write_text("{}")
    path = tmp_path / "tokenizer.json"
    long = "\U0001f600" + "a" * 20_000
    path.write_text(json.dumps({"model": {"vocab": {f"{long}{i}": i for i in range(1100)}}}, ensure_ascii=False))
    with pytest.raises(BadInput, match="more than any model needs"):
        read_object(path)
    checkpoint = open_checkpoint(tmp_path)
    found = checkpoint.json("tokenizer.json")
    assert found is not None
    assert len(found["model"]["vocab"]) == 1100
    for size, message in ((MAX_TOKENIZER_BYTES + 1, "over the limit"), (1 << 40, "has 1099511627776 bytes")):
        with path.open("wb") as file:
            file.truncate(size)  # sparse
        with pytest.raises(BadInput, match=rf"tokenizer\.json .*{message}"):
            checkpoint.json("tokenizer.json")


def test_all_texts_are_found() -> None:
    assert sorted(texts({"a": ["b", {"c": "d"}, 1, None]})) == ["a", "b", "c", "d"]


def test_a_configuration_is_a_file_and_of_reasonable_size(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"a": "\U0001f600"}))
    assert read_object(path) == {"a": "\U0001f600"}
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(BadInput, match=r"config\.json has \d+ bytes, over the limit"):
        read_object(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadInput, match="not a regular file"):
        read_object(path)
