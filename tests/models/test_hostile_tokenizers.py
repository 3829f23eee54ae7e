"""Tokenizer files that nobody vouches for: the library they are given to neither ends nor stops the program."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizer_cases import added, bpe_files, read, write_json

from streamconv.errors import BadInput
from streamconv.models.tokenizers import BPE, SPM, library
from streamconv.models.tokenizers.files import TokenizerFiles
from streamconv.sources.checkpoint import Checkpoint
from streamconv.sources.sentencepiece import read_pieces

#: makes the library's regular expressions try for ever, or give up with a panic
BACKTRACKING = {"Regex": "(a+)+$"}
BUSY = "a" * 40 + "b"


def regex_split(pattern: dict[str, str]) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def doubling(times: int) -> list[dict[str, Any]]:
    return [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}] * times


@pytest.mark.parametrize(
    "decoder",
    [
        {"type": "Replace", "pattern": BACKTRACKING, "content": "x"},
        {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": BACKTRACKING, "content": "x"}]},
        {"type": "Replace", "pattern": {"Regex": "("}, "content": "x"},
        {"type": "Nonsense"}, [], 7, "x", {"type": "Sequence", "decoders": doubling(2)},
    ],
    ids=lambda d: json.dumps(d)[:40],
)  # fmt: skip
def test_a_decoder_that_the_library_does_not_survive_is_refused_by_name(decoder: Any, tmp_path: Path) -> None:
    bpe_files(tmp_path, decoder=decoder, added_tokens=[added(4, "<|end|>"), added(5, BUSY + "aé", special=False)])
    with pytest.raises(BadInput, match=rf"^{tmp_path}/tokenizer\.json (cannot be used|crashes|keeps)"):
        read(tmp_path, BPE, "gpt-2")


def test_a_decoder_that_takes_long_with_every_token_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_CPU_S", 2)
    slow = {"type": "Replace", "pattern": {"Regex": "(a+)+c"}, "content": "x"}
    many = [added(4 + i, f"{('a' * 18 + 'b') * 200}{i}", special=False) for i in range(40)]
    bpe_files(tmp_path, decoder=slow, added_tokens=many)
    began = time.monotonic()
    with pytest.raises(BadInput, match=r"tokenizer\.json keeps the tokenizers library busy for more than 2 s"):
        read(tmp_path, BPE, "gpt-2")
    assert time.monotonic() - began < 60


def test_a_decoder_that_takes_all_memory_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_MEMORY_BYTES", 1 << 30)
    more = {"type": "Sequence", "decoders": doubling(3)}
    bpe_files(tmp_path, decoder=more, added_tokens=[added(4, "aaa", special=False)])
    with pytest.raises(BadInput, match=r"tokenizer\.json (crashes the tokenizers library|cannot be used)"):
        read(tmp_path, BPE, "gpt-2")


@pytest.mark.parametrize("key", ["pre_tokenizer", "normalizer"])
def test_a_splitter_that_the_library_does_not_survive_is_refused_by_name(key: str, tmp_path: Path) -> None:
    text = {"Regex": r"((\S|\s)+)+\z!"}
    value = regex_split(text) if key == "pre_tokenizer" else {"type": "Replace", "pattern": text, "content": "x"}
    with pytest.raises(BadInput, match=rf"^{tmp_path}/tokenizer\.json (cannot be used|crashes|keeps)") as raised:
        read(bpe_files(tmp_path, **{key: value}), BPE)
    assert "--pre NAME" in raised.value.hint


def test_the_command_line_says_65_and_names_the_file(tmp_path: Path, data: Path) -> None:
    source = data / "tokenizers" / "llama3-bpe"
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = json.loads((tmp_path / "tokenizer.json").read_text())
    whole["decoder"] = {"type": "Replace", "pattern": BACKTRACKING, "content": "x"}
    whole["added_tokens"].append(added(len(whole["added_tokens"]) + 500, BUSY, special=False))
    write_json(tmp_path, "tokenizer.json", whole)
    done = subprocess.run(
        [sys.executable, "-m", "streamconv", "plan", str(tmp_path), "x.gguf", "--vocab-only", "--pre", "llama-bpe"],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 65, done.stderr
    assert f"{tmp_path}/tokenizer.json" in done.stderr
    assert "Traceback" not in done.stderr
    assert "panicked" not in done.stderr


def test_a_file_of_nothing_but_the_word_model_is_parsed_a_few_times_only(tmp_path: Path) -> None:
    words = '"model",' * 200_000
    (tmp_path / "tokenizer.json").write_text(
        f'{{"added_tokens": [], "post_processor": null, "x": [{words}0], "decoder": {{"type": "Fuse"}}, "model": {{}}}}'
    )
    began = time.process_time()
    head = TokenizerFiles(Checkpoint(tmp_path, {}, {}, ())).tokenizer_head
    assert time.process_time() - began < 5
    assert head["decoder"] == {"type": "Fuse"}
    assert "model" not in head


@pytest.mark.parametrize("name", ["merges.txt", "chat_template.jinja"])
def test_a_text_of_too_many_lines_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\n" * (2 << 20))
    with pytest.raises(BadInput, match=f"{name} is too long for a side file"):
        TokenizerFiles(Checkpoint(tmp_path, {}, {}, ())).text(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        b"\n\x00" * (8 << 20), b"\x10\x00" * (8 << 20), b"\n\xfe\xff\xff\x03" + b"\x18\x00" * (4 << 20), b"\0" * (33 << 20),
        b"\n\x04\n\x02ab" * (1 << 21),
    ],
    ids=["empty pieces", "other fields", "one piece of many fields", "bytes", "pieces"],
)  # fmt: skip
def test_a_sentencepiece_model_that_takes_too_much_is_refused(data: bytes) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(BadInput, match=r"^x/tokenizer\.model (describes more|has 34603008 bytes)"):
        read_pieces(data, Path("x/tokenizer.model"))
    assert time.process_time() - began < 8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_a_tokenizer_that_is_far_too_large_is_not_given_to_the_library(tmp_path: Path) -> None:
    for names, rule in ((["tokenizer.json"], BPE), (["vocab.json", "merges.txt"], BPE), (["tokenizer.model"], SPM)):
        folder = tmp_path / names[0]
        folder.mkdir()
        for name in names:
            with (folder / name).open("wb") as file:
                file.truncate(1 << 40)  # sparse
        began = time.process_time()
        with pytest.raises(BadInput, match=f"{names[0]} has 1099511627776 bytes, over the limit"):
            read(folder, rule)
        assert time.process_time() - began < 5
