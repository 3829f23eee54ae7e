"""Text becomes the tokens that llama.cpp makes of it, whatever the vocabulary, and whatever is in the text."""

from __future__ import annotations

import json
import lzma
import random
import time
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_tokens import RECORDED, asked, first_of_each
from small_vocabularies import Keys, all_kinds, byte_pairs, longest_match, plamo, sentence_pieces, unigram, word_pieces

from streamconv.errors import BadInput
from streamconv.sources.gguf import read_gguf
from streamconv.text import Tokenizer, open_tokenizer
from streamconv.text.characters import decoded, kinds
from streamconv.text.merging import Seams, merged
from streamconv.text.pretokenizers import NAMES, pre_tokenizer

TOKENS = json.loads(lzma.decompress(RECORDED.read_bytes()))
KINDS = all_kinds()
PIECES = open_tokenizer(KINDS["pieces"])


@pytest.mark.parametrize("name", first_of_each())
def test_every_pre_tokenizer_splits_as_llama_cpp_does(name: str) -> None:
    keys = byte_pairs(name)
    tokenizer = open_tokenizer(keys)
    for text, tokens in zip(asked(keys), TOKENS["pre"][name], strict=True):
        assert tokenizer.encode(text, parse_special=True, add_special=False) == tokens, text


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_vocabulary_makes_the_tokens_of_llama_cpp(name: str) -> None:
    keys = KINDS[name]
    tokenizer = open_tokenizer(keys)
    for text, lists in zip(asked(keys), TOKENS["kinds"][name], strict=True):
        found = [tokenizer.encode(text, parse_special=p, add_special=a) for p in (False, True) for a in (False, True)]
        assert found == lists, text


def test_files_of_converted_models_give_the_recorded_tokens(reference: Path) -> None:
    n_files = 0
    for path in sorted((reference / "golden" / "gguf").glob("*/case.json")):
        case = json.loads(path.read_text()).get("llamacpp_tokenize")
        if case and path.with_name("f32.gguf").exists():
            tokenizer = open_tokenizer(read_gguf(path.with_name("f32.gguf")).metadata)
            assert tokenizer.encode(case["text"]) == case["ids"], path
            if tokenizer.add_bos:
                assert tokenizer.bos == case["bos"], path
            n_files += 1
    assert n_files > 20


def test_every_name_that_loaders_know_stands_for_what_they_do(reference: Path) -> None:
    known = json.loads((reference / "spec" / "pretokenizers.json").read_text())["loader_pre_names"]
    assert sorted(known) == sorted(NAMES)
    for name, facts in known.items():
        does, effects = pre_tokenizer(name), facts["loader_side_effects"]
        assert does.whole_words == effects.get("ignore_merges", False), name
        assert does.adds_bos == effects.get("add_bos", False), name
        assert does.escapes_blanks == effects.get("escape_whitespaces", False), name


def test_classes_are_those_that_this_python_knows_where_both_know_the_character() -> None:
    recorded = kinds().tobytes().decode()
    assert len(recorded) == 0x110000
    here = "".join("U" if (c := unicodedata.category(chr(i))) == "Cn" else c[0] for i in range(0x110000))
    different = {(a, b) for a, b in zip(recorded, here, strict=True) if a != b}
    assert all("U" in pair for pair in different), different
    if unicodedata.unidata_version == "15.1.0":
        assert recorded == here


def test_broken_utf8_is_read_byte_by_byte_and_what_lies_beyond_unicode_is_refused() -> None:
    assert decoded(b"a\xff\xc3(\xe2\x82\xc0\x80\xed\xa0\x80\xf0\x9f\x9a\x80") == "a\ufffd\ufffd(\ufffd\ufffd\0\ud800🚀"
    with pytest.raises(BadInput, match="byte 2 of the text starts a character beyond Unicode"):
        decoded(b"ab\xf7\xbf\xbf\xbf")


def test_a_lone_surrogate_in_a_string_is_the_bytes_it_would_be_in_a_file() -> None:
    assert PIECES.encode("a\ud800b") == PIECES.encode(b"a\xed\xa0\x80b")


letters = st.text("abc▁", min_size=1, max_size=4)


@settings(max_examples=100)
@given(st.dictionaries(letters, st.integers(0, 5), max_size=12), st.text("abc▁d", max_size=40))
def test_a_text_cut_where_nothing_reaches_over_is_merged_to_the_same(scores: dict[str, int], text: str) -> None:
    def rank(left: str, right: str) -> int | None:
        return scores.get(left + right)

    parts = Seams(scores).parts(text)
    assert "".join(parts) == text
    assert [symbol for part in parts for symbol in merged(part, rank)] == merged(text, rank)


@settings(max_examples=100)
@given(st.dictionaries(letters, st.integers(0, 3), max_size=12), st.text("abc▁", max_size=20))
def test_merging_takes_the_best_pair_each_time_and_of_equals_the_first(scores: dict[str, int], text: str) -> None:
    symbols = list(text)
    while ranked := [(scores[a + b], i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in scores]:
        i = min(ranked)[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    assert merged(text, lambda left, right: scores.get(left + right)) == symbols


def texts(keys: Keys, tokenizer: Tokenizer, text: str, **how: bool) -> list[str]:
    return [keys["tokenizer.ggml.tokens"][i] for i in tokenizer.encode(text, **how)]


def test_longer_tokens_are_matched_before_shorter_ones_wherever_they_are() -> None:
    keys = with_tokens({"[a": 4, "b]": 4, "a][b": 4, "]": 4})
    assert texts(keys, open_tokenizer(keys), "[a][b]", add_special=False) == ["▁", "<0x5B>", "a][b", "]"]


def test_control_tokens_are_text_unless_they_are_asked_for_and_user_defined_ones_never_are() -> None:
    keys = with_tokens({"<c>": 3, "<u>": 4})
    tokenizer = open_tokenizer(keys)
    assert texts(keys, tokenizer, "<c><u>", add_special=False) == ["▁", "<0x3C>", "c", "<0x3E>", "<u>"]
    assert texts(keys, tokenizer, "<c><u>", add_special=False, parse_special=True) == ["<c>", "<u>"]


def test_tokens_that_end_a_turn_are_control_tokens_whatever_the_file_says() -> None:
    keys = with_tokens({"<|im_end|>": 4, "<|fim_prefix|>": 1, "<|message|>": 3})
    tokenizer = open_tokenizer(keys)
    assert "<|im_end|>" not in texts(keys, tokenizer, "<|im_end|>")
    assert "<|im_end|>" in texts(keys, tokenizer, "<|im_end|>", parse_special=True)
    assert "<|fim_prefix|>" in texts(keys, tokenizer, "<|fim_prefix|>", parse_special=True)
    assert "<|message|>" in texts(keys, tokenizer, "<|message|>")
    named = open_tokenizer(keys | {"tokenizer.ggml.fim_pre_token_id": 1})
    assert "<|fim_prefix|>" not in texts(keys, named, "<|fim_prefix|>", parse_special=True)


def test_a_mask_takes_the_blanks_before_it_along_where_the_model_is_known_for_it() -> None:
    keys = with_tokens({"<mask>": 4}) | {"general.architecture": "nomic-bert-moe"}
    assert texts(keys, open_tokenizer(keys), "a \n\t<mask> b", add_special=False) == ["▁", "a", "<mask>", "▁▁", "b"]


def with_tokens(kinds_of: dict[str, int]) -> Keys:
    """A vocabulary with further tokens of these types."""
    keys = sentence_pieces()
    more = {"tokens": [*kinds_of], "scores": [0.0] * len(kinds_of), "token_type": [*kinds_of.values()]}
    return keys | {f"tokenizer.ggml.{key}": keys[f"tokenizer.ggml.{key}"] + values for key, values in more.items()}


def test_texts_begin_and_end_as_the_keys_say() -> None:
    keys = sentence_pieces(add_bos_token=False, add_eos_token=True, eos_token_id=1, bos_token_id=10**6)
    tokenizer = open_tokenizer(keys)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.add_bos, tokenizer.add_eos) == (1, 1, False, True)
    assert tokenizer.encode("") == [1]
    assert open_tokenizer(word_pieces()).encode("") == [2, 3]  # whatever the keys say
    assert open_tokenizer(longest_match()).encode("") == []
    gemma = open_tokenizer(byte_pairs("gemma4") | {"tokenizer.ggml.add_bos_token": False})
    assert gemma.add_bos
    assert gemma.encode("") == [gemma.bos]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"model": "hybriddna"},
            "key tokenizer.ggml.model is 'hybriddna', a kind of vocabulary that is not known here",
        ),
        ({"model": "none"}, "key tokenizer.ggml.model is 'none'"),
        ({"model": None}, "key tokenizer.ggml.model is missing"),
        ({"pre": "gpt-9"}, "tokenizer.ggml.pre is 'gpt-9', a way to split text that is not known here"),
        ({"merges": None}, "key tokenizer.ggml.merges is missing"),
        ({"tokens": None}, "key tokenizer.ggml.tokens is missing"),
        ({"tokens": "abc"}, "key tokenizer.ggml.tokens is not an array of strings"),
        ({"tokens": [1, 2]}, "key tokenizer.ggml.tokens is not an array of strings"),
        ({"token_type": [1]}, "key tokenizer.ggml.token_type does not have a number for each of the"),
        ({"add_bos_token": "yes"}, "key tokenizer.ggml.add_bos_token is 'yes', which is neither true nor false"),
    ],
)
def test_what_cannot_be_done_is_refused_by_the_key(changed: dict[str, object], message: str) -> None:
    keys = byte_pairs("qwen2") | {f"tokenizer.ggml.{key}": value for key, value in changed.items()}
    with pytest.raises(BadInput, match=message):
        open_tokenizer(keys)


def test_every_refusal_of_a_kind_says_which_ones_there_are() -> None:
    with pytest.raises(BadInput) as e:
        open_tokenizer({"tokenizer.ggml.model": "magic"})
    assert "bert, gemma4, gpt2, llama, plamo2, rwkv, t5, whitespace" in e.value.hint


def test_a_text_that_needs_what_the_vocabulary_lacks_is_refused() -> None:
    lacks: list[tuple[Keys, str]] = [
        (
            sentence_pieces()
            | {"tokenizer.ggml.tokens": [f"{t}~" for t in sentence_pieces()["tokenizer.ggml.tokens"]]},
            "no token <0x",
        ),
        (word_pieces() | {"tokenizer.ggml.unknown_token_id": None}, "no unknown token"),
        (unigram(add_eos_token=False) | {"tokenizer.ggml.tokens": ["a"]}, "no unknown token"),
        (longest_match() | {"tokenizer.ggml.tokens": ["ab"]}, "no token for the byte 0x61"),
        (
            longest_match() | {"tokenizer.ggml.tokens": ["ab"], "tokenizer.ggml.unknown_token_id": None},
            "no unknown token",
        ),
    ]
    for keys, message in lacks:
        with pytest.raises(BadInput, match=message):
            open_tokenizer(keys).encode("ac" if "0x61" in message else "€")
    with pytest.raises(BadInput, match="no bos token"):
        open_tokenizer(
            byte_pairs("glm4") | {"tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.add_bos_token": True}
        ).encode("")
    tokens = [t.replace("<0x41>", "A!") for t in plamo()["tokenizer.ggml.tokens"]]
    with pytest.raises(BadInput, match="only 255 tokens of bytes"):
        open_tokenizer(plamo() | {"tokenizer.ggml.tokens": tokens})


@pytest.mark.parametrize("n_bytes", [2, 40, 700])
def test_a_damaged_map_of_characters_is_refused(n_bytes: int) -> None:
    whole = unigram()["tokenizer.ggml.precompiled_charsmap"]
    with pytest.raises(BadInput, match="precompiled_charsmap is damaged"):
        open_tokenizer(unigram(precompiled_charsmap=whole[:n_bytes]))
    rng = random.Random(3)
    wild = whole[:4] + [rng.randrange(256) for _ in whole[4:]]
    with pytest.raises(BadInput, match="precompiled_charsmap is damaged"):
        open_tokenizer(unigram(precompiled_charsmap=wild)).encode("".join(map(chr, range(1, 3000))))


@pytest.mark.parametrize(
    "keys", [sentence_pieces(), byte_pairs("llama-bpe"), byte_pairs("gemma4")], ids=["pieces", "words", "lines"]
)
def test_long_runs_take_no_more_than_their_length(keys: Keys) -> None:
    tokenizer = open_tokenizer(keys)
    started = time.process_time()
    for run in ("a", " ", "ab", "\n", "\U0001f680"):
        assert tokenizer.encode(run * 20_000)
    assert time.process_time() - started < 5


def test_many_tokens_that_take_blanks_along_take_no_more_than_the_length_of_the_text() -> None:
    tokenizer = open_tokenizer(with_tokens({"<t>": 4}) | {"general.name": "phi-3"})
    started = time.process_time()
    assert len(set(tokenizer.encode("<t>  " * 200_000, add_special=False))) == 1
    assert time.process_time() - started < 5


def test_keys_may_be_arrays_of_numbers() -> None:
    keys = KINDS["pieces"]
    arrays = {"tokenizer.ggml.scores": np.float32, "tokenizer.ggml.token_type": np.int32}
    found = open_tokenizer(keys | {key: np.array(keys[key], kind) for key, kind in arrays.items()})
    assert found.encode("the ab a▁b") == PIECES.encode("the ab a▁b")
