"""Tokens of hostile texts as real llama.cpp makes them, with every pre-tokenizer and every kind of vocabulary."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hostile_texts import hostile_texts
from small_vocabularies import all_kinds, byte_pairs, write

from streamconv.sources.gguf import read_gguf
from streamconv.text import default_text, open_tokenizer
from streamconv.text.pretokenizers import NAMES
from streamconv.text.vocabulary import Keys

pytestmark = [pytest.mark.oracle, pytest.mark.slow]
KINDS = all_kinds()


def _folder(peers: Path) -> Path:
    """Where llama.cpp's own vocabularies are."""
    return Path(os.environ.get("STREAMCONV_VOCABULARIES") or peers.parent.parent / "llama.cpp" / "models")


def _assert_same(llama, path: Path, keys: Keys, texts: Sequence[bytes]) -> None:
    tokenizer = open_tokenizer(keys)
    (answer,) = llama({"do": "tokenize", "file": str(path), "texts": [text.decode("latin-1") for text in texts]})
    assert answer["ok"], answer
    for text, lists in zip(texts, answer["tokens"], strict=True):
        found = [tokenizer.encode(text, parse_special=p, add_special=a) for p in (False, True) for a in (False, True)]
        assert found == lists, text


@pytest.mark.parametrize("pre", NAMES)
def test_every_pre_tokenizer_splits_as_there(pre: str, llama, tmp_path: Path) -> None:
    keys = byte_pairs(pre)
    _assert_same(llama, write(tmp_path / "v.gguf", keys), keys, hostile_texts(1, 150, ("<s>", "<u>")))


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_vocabulary_makes_the_same_tokens(name: str, llama, tmp_path: Path) -> None:
    keys = KINDS[name]
    special = [
        t
        for t, kind in zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"], strict=True)
        if kind in (2, 3, 4)
    ]
    _assert_same(llama, write(tmp_path / "v.gguf", keys), keys, hostile_texts(2, 500, special))


def test_llama_cpps_own_vocabularies_pass_its_own_tests(peers: Path) -> None:
    files = sorted(_folder(peers).glob("ggml-vocab-*.gguf.inp"))
    if not files:
        pytest.skip(f"no vocabularies of llama.cpp in {_folder(peers)}")
    for asked in files:
        tokenizer = open_tokenizer(read_gguf(asked.with_suffix("")).metadata)
        texts = asked.read_bytes().decode().split("\n__ggml_vocab_test__\n")
        answers = asked.with_suffix(".out").read_text().splitlines()
        assert len(answers) > 40
        for text, answer in zip(texts, answers, strict=False):
            assert tokenizer.encode(text, add_special=False) == [int(token) for token in answer.split()], (
                asked.name,
                text,
            )


def test_llama_cpps_own_vocabularies_make_the_same_tokens(llama, peers: Path) -> None:
    files = sorted(_folder(peers).glob("ggml-vocab-*.gguf"))
    if not files:
        pytest.skip(f"no vocabularies of llama.cpp in {_folder(peers)}")
    for path in files:
        keys = read_gguf(path, lenient=True).metadata
        tokens, types = keys.get("tokenizer.ggml.tokens"), keys.get("tokenizer.ggml.token_type")
        special = [tokens[i] for i, kind in enumerate(types) if kind in (2, 3, 4)]
        _assert_same(llama, path, keys, hostile_texts(3, 300, special[:: max(1, len(special) // 40)]))


def test_the_bundled_text_is_40_chunks_for_vocabularies_in_use_and_has_none_of_their_control_tokens(
    peers: Path,
) -> None:
    files = [_folder(peers) / f"ggml-vocab-{name}.gguf" for name in ("llama-bpe", "qwen2", "llama-spm", "gemma-4")]
    if not all(path.exists() for path in files):
        pytest.skip(f"no vocabularies of llama.cpp in {_folder(peers)}")
    for path in files:
        tokenizer = open_tokenizer(read_gguf(path, lenient=True).metadata)
        tokens = tokenizer.encode(default_text())
        assert len(tokens) >= 40 * 512, path.name
        assert tokens == tokenizer.encode(default_text(), parse_special=True), path.name
