"""A tokenizer is what its files hold: pieces in a tokenizer.json, added tokens of several files, null, values of wrong types."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tokenizer_cases import added, bpe_files, checkpoint, read, spm_file, write_json
from tokenizers import Tokenizer

import streamconv
from streamconv.errors import BadInput, InputMissing
from streamconv.models.tokenizers import BERT, BPE, GEMMA, GEMMA3, LLAMA, QWEN, SPM, TokenizerRule, tokenizer_metadata
from streamconv.models.tokenizers.chat_template import chat_templates
from streamconv.models.tokenizers.files import TokenizerFiles
from streamconv.models.tokenizers.vocabulary import TokenType
from streamconv.sources.checkpoint import Checkpoint, InputFile

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = TokenType
BLANK = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
BYTES = [f"<0x{n:02X}>" for n in range(256)]
#: "an" is made before "▁a", which is made before "▁an"
PIECES = ["<unk>", "<s>", "▁", "a", "n", "▁a", "an", "▁an", *BYTES]
MERGES = [["a", "n"], ["▁", "a"], ["▁", "an"], ["▁a", "n"]]


def pieces_file(folder: Path, **changes: Any) -> Path:
    """A tokenizer.json of pieces with bytes to fall back to; ``model`` of the changes is merged into its model."""
    model = {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "vocab": {t: n for n, t in enumerate(PIECES)}}
    model |= {"merges": MERGES} | changes.pop("model", {})
    steps = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    head = {"pre_tokenizer": None, "normalizer": BLANK, "decoder": steps, "added_tokens": [added(1, "<s>")]}
    return bpe_files(folder, **{**head, **changes, "model": model})


def tokens(found: Any) -> list[tuple[str, int]]:
    texts, types = (found.metadata.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    return list(zip(texts, types, strict=True))


def scores(found: Any) -> dict[str, float]:
    return dict(
        zip(found.metadata.get("tokenizer.ggml.tokens"), found.metadata.get("tokenizer.ggml.scores"), strict=True)
    )


# Pieces in tokenizer.json


@pytest.mark.parametrize(
    "rule", [LLAMA, QWEN, GEMMA, GEMMA3, SPM, BPE, TokenizerRule(("bpe", "spm"))], ids=lambda rule: "-".join(rule.kinds)
)
def test_pieces_in_tokenizer_json_are_a_sentencepiece_vocabulary_for_every_family(
    tmp_path: Path, rule: TokenizerRule
) -> None:
    found = read(pieces_file(tmp_path), rule)
    assert found.metadata.get("tokenizer.ggml.model") == "llama"
    assert found.kind == "spm"
    assert tokens(found)[:8] == [
        ("<unk>", UNKNOWN), ("<s>", CONTROL), *((text, NORMAL) for text in PIECES[2:8])
    ]  # fmt: skip
    assert set(tokens(found)[8:]) == {(text, BYTE) for text in BYTES}
    assert "tokenizer.ggml.merges" not in found.metadata
    assert found.warnings == []


def test_scores_follow_the_ranks_of_the_merges_however_these_are_written(tmp_path: Path) -> None:
    found = scores(read(pieces_file(tmp_path), LLAMA))
    assert found["an"] > found["▁a"] > found["▁an"] > found["a"] == found["n"] == found["▁"]
    pieces_file(tmp_path, model={"merges": [" ".join(pair) for pair in MERGES]})
    assert scores(read(tmp_path, LLAMA)) == found


def test_a_pre_tokenizer_that_is_named_makes_no_byte_level_vocabulary_of_pieces(tmp_path: Path) -> None:
    found = read(pieces_file(tmp_path), QWEN, "qwen2")
    assert found.metadata.get("tokenizer.ggml.model") == "llama"
    assert "--pre qwen2 has no effect" in found.warnings[0]


@pytest.mark.parametrize("fallback", [False, None])
@pytest.mark.parametrize("decoder", ["ByteFallback", "Fuse"])
def test_pieces_without_bytes_to_fall_back_to_are_refused_also_with_a_name(
    tmp_path: Path, fallback: bool | None, decoder: str
) -> None:
    pieces_file(tmp_path, model={"byte_fallback": fallback}, decoder={"type": decoder})
    for pre in ("gpt-2", None):
        with pytest.raises(BadInput, match=r"tokenizer\.json: its vocabulary is not byte-level"):
            read(tmp_path, QWEN, pre)


def test_pieces_under_a_byte_level_step_are_refused(tmp_path: Path) -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    with pytest.raises(BadInput, match="not byte-level"):
        read(pieces_file(tmp_path, pre_tokenizer=byte_level), LLAMA, "gpt-2")


def test_added_tokens_among_the_pieces_and_above_them_get_their_types(tmp_path: Path) -> None:
    more = [added(1, "<s>"), added(5, "▁a", special=False), added(264, "<tool>", special=False), added(265, "<img>")]
    write_json(pieces_file(tmp_path, added_tokens=more), "config.json", {"vocab_size": 268})
    write_json(
        tmp_path,
        "tokenizer_config.json",
        {"added_tokens_decoder": {"266": {"content": "<|mine|>"}}, "pad_token": "<pad>"},
    )
    found = read(tmp_path, LLAMA)
    assert tokens(found)[5] == (" a", USER)
    assert tokens(found)[264:] == [("<tool>", USER), ("<img>", CONTROL), ("<|mine|>", CONTROL), ("<pad>", CONTROL)]
    assert scores(found)["an"] > scores(found)[" a"] > scores(found)["▁an"]


@pytest.mark.parametrize(
    ("changes", "stated", "rule", "written"),
    [
        ({}, None, LLAMA, False),
        ({}, None, QWEN, False),
        ({}, None, GEMMA3, False),
        ({}, True, LLAMA, True),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, BLANK]}}, None, LLAMA, None),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}}, None, LLAMA, None),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"}}, None, LLAMA, False),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": False}}, None, LLAMA, False),
    ],
)  # fmt: skip
def test_whether_a_blank_goes_before_a_text_is_what_tokenizer_json_does(
    tmp_path: Path, changes: dict[str, Any], stated: bool | None, rule: TokenizerRule, written: bool | None
) -> None:
    write_json(pieces_file(tmp_path, **changes), "tokenizer_config.json", {"add_prefix_space": stated})
    found = read(tmp_path, rule)
    assert found.metadata.get("tokenizer.ggml.add_space_prefix") is written
    assert any("add_prefix_space" in warning for warning in found.warnings) == (stated is True)


@pytest.mark.parametrize(
    ("merges", "words"),
    [
        (MERGES[:3], "'▁an' for one"),  # a runtime makes it of "▁a" and "n" too
        ([MERGES[3], *MERGES[:3]], "'an' for one"),  # one way to "▁an" goes before "an", the other after it
        (MERGES[:1], "'▁a' for one"),  # no merge makes it
    ],
)
def test_an_order_that_scores_cannot_say_is_told(tmp_path: Path, merges: list[list[str]], words: str) -> None:
    found = read(pieces_file(tmp_path, model={"merges": merges}), LLAMA)
    assert any(words in warning and "may tokenize some texts differently" in warning for warning in found.warnings)


def test_bytes_without_a_piece_are_told(tmp_path: Path) -> None:
    vocab = {text: n for n, text in enumerate(PIECES[:-6])}
    found = read(pieces_file(tmp_path, model={"vocab": vocab}), LLAMA)
    assert "has tokens for 250 of 256 bytes" in found.warnings[0]


@pytest.mark.parametrize("merges", [7, [["a"]], ["a"], ["a n x"], [["a", 1]], [["n", "n"]]])
def test_merges_that_are_none_are_refused(tmp_path: Path, merges: object) -> None:
    with pytest.raises(BadInput, match=r"tokenizer\.json: merge"):
        read(pieces_file(tmp_path, model={"merges": merges}), LLAMA)


def test_a_sentencepiece_model_goes_before_the_same_pieces_in_tokenizer_json(tmp_path: Path) -> None:
    pieces_file(tmp_path)
    spm_file(tmp_path, *((text, -7.0, 6 if text in BYTES else 1) for text in PIECES))
    for rule in (LLAMA, TokenizerRule(("bpe", "spm"))):
        assert scores(read(tmp_path, rule))["an"] == -7


# Added tokens of several files


def test_the_last_file_that_speaks_of_an_id_is_believed_and_contradictions_are_told(tmp_path: Path) -> None:
    spm_file(tmp_path, ("<unk>", 0, 2), ("<s>", 0, 3), ("<turn>", 0, 4), ("▁a", -1, 1))
    write_json(tmp_path, "config.json", {"vocab_size": 9})
    write_json(tmp_path, "added_tokens.json", {"<listed>": 4, "<both>": 5, "<old>": 6})
    in_json = [
        added(0, "<unk>"),
        added(1, "<s>"),
        added(2, "<turn>"),
        added(5, "<both>"),
        added(6, "<new>", special=False),
    ]
    bpe_files(tmp_path, added_tokens=[*in_json, added(7, "<tool>", special=False), added(8, "▁a")], decoder=None,
              pre_tokenizer=None)  # fmt: skip
    write_json(
        tmp_path, "tokenizer_config.json", {"added_tokens_decoder": {"7": {"content": "<tool>", "special": True}}}
    )
    found = read(tmp_path, LLAMA)
    assert tokens(found) == [
        ("<unk>", UNKNOWN), ("<s>", CONTROL), ("<turn>", CONTROL), ("▁a", NORMAL), ("<listed>", USER), ("<both>", CONTROL),
        ("<new>", USER), ("<tool>", CONTROL), ("[PAD8]", UNUSED),
    ]  # fmt: skip
    assert [w for w in found.warnings if "token" in w] == [
        "token 6 is '<old>' in added_tokens.json and '<new>' in tokenizer.json: the latter is used",
        f"tokenizer.json's token '▁a' is ignored: its id is 8 there, and 3 in {tmp_path / 'tokenizer.model'}",
    ]


def test_added_tokens_json_completes_a_vocabulary_that_has_no_tokenizer_json(tmp_path: Path) -> None:
    write_json(tmp_path, "vocab.json", {"a": 0, "b": 1, "ab": 2})
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    write_json(tmp_path, "added_tokens.json", {"<|end|>": 3, "<tool>": 4, "<eos>": 5})
    write_json(tmp_path, "special_tokens_map.json", {"eos_token": {"content": "<eos>"}})
    found = read(tmp_path, BPE, "gpt-2")
    assert tokens(found)[3:] == [("<|end|>", CONTROL), ("<tool>", USER), ("<eos>", CONTROL)]
    assert found.metadata.get("tokenizer.ggml.eos_token_id") == 5


# null, and values of wrong types


@pytest.mark.parametrize("write", [bpe_files, pieces_file])
def test_null_in_a_file_says_what_an_absent_key_says(tmp_path: Path, write: Any) -> None:
    write(tmp_path, added_tokens=None)
    said = read(tmp_path, LLAMA, "gpt-2")
    names = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    write_json(
        tmp_path,
        "tokenizer_config.json",
        {f"{name}_token": None for name in names}
        | {f"add_{name}_token": None for name in names}
        | dict.fromkeys(("add_prefix_space", "added_tokens_decoder", "chat_template", "tokenizer_class")),
    )
    write_json(tmp_path, "config.json", {f"{name}_token_id": None for name in names})
    whole = json.loads((tmp_path / "tokenizer.json").read_text())
    whole |= dict.fromkeys(("added_tokens", "post_processor", "truncation"))
    whole["model"] |= dict.fromkeys(("dropout", "ignore_merges"))
    write_json(tmp_path, "tokenizer.json", whole)
    found = read(tmp_path, LLAMA, "gpt-2")
    assert found.metadata == said.metadata
    assert found.warnings == said.warnings


def test_null_leaves_a_bert_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(f"[{n}]" for n in ("PAD", "UNK", "CLS", "SEP", "MASK")) + "\na\n")
    said = read(tmp_path, BERT, "bert-bge")
    nothing = dict.fromkeys(("do_lower_case", "tokenize_chinese_chars", "strip_accents", "unk_token"))
    write_json(tmp_path, "tokenizer_config.json", nothing)
    found = read(tmp_path, BERT, "bert-bge")
    assert found.metadata.get("tokenizer.ggml.tokens") == said.metadata.get("tokenizer.ggml.tokens")


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("tokenizer_config.json", "add_prefix_space", "false"),
        ("tokenizer_config.json", "add_bos_token", "true"),
        ("tokenizer_config.json", "add_eos_token", 1),
        ("tokenizer_config.json", "bos_token", 1),
        ("tokenizer_config.json", "eos_token", {"text": "</s>"}),
        ("config.json", "eos_token_id", "2"),
        ("config.json", "bos_token_id", True),
        ("config.json", "pad_token_id", 0.5),
        ("config.json", "eos_token_id", [2, "3"]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_file_key_and_value(
    tmp_path: Path, file: str, key: str, value: object
) -> None:
    write_json(bpe_files(tmp_path), file, {key: value})
    with pytest.raises(BadInput) as caught:
        read(tmp_path, LLAMA, "gpt-2")
    for part in (file, repr(key), repr(value)):
        assert part in caught.value.message


@pytest.mark.parametrize("flag", ["special", "normalized"])
def test_a_flag_of_an_added_token_must_be_one(tmp_path: Path, flag: str) -> None:
    bpe_files(tmp_path, added_tokens=[{**added(4, "<x>"), flag: "yes"}])
    with pytest.raises(BadInput, match=f"'{flag}' of '<x>' is 'yes'"):
        read(tmp_path, BPE, "gpt-2")
    bpe_files(tmp_path, added_tokens=[{**added(4, "<x>"), flag: None}])
    assert tokens(read(tmp_path, BPE, "gpt-2"))[4][0] == "<x>"


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_tokens_around_which_blanks_count_are_told(tmp_path: Path, flag: str) -> None:
    def told(*tokens: dict[str, Any], **config: Any) -> list[str]:
        bpe_files(tmp_path, added_tokens=list(tokens))
        write_json(tmp_path, "tokenizer_config.json", config)
        return [text for text in read(tmp_path, BPE, "gpt-2").warnings if "lstrip, rstrip, single_word" in text]

    assert told(added(4, "<user>")) == []
    (note,) = told({**added(4, "<user>"), flag: True}, {**added(5, "<mask>"), flag: True}, mask_token="<mask>")
    assert "'<user>' take blanks" in note
    assert "<mask>" not in note
    assert told(added(4, "<user>"), added_tokens_decoder={"4": {**added(4, "<user>"), flag: True}})
    with pytest.raises(BadInput, match=f"'{flag}' of '<user>' is 'yes'"):
        told({**added(4, "<user>"), flag: "yes"})


@pytest.mark.parametrize("kind", ["bos", "eos", "unk", "sep", "pad", "mask"])
def test_a_negative_id_means_none(tmp_path: Path, kind: str) -> None:
    for ids in (-1, [-1] if kind == "eos" else -2):
        write_json(bpe_files(tmp_path, added_tokens=None), "config.json", {f"{kind}_token_id": ids})
        metadata = read(tmp_path, LLAMA, "gpt-2").metadata
        assert not [key for key, _ in metadata.items() if key.endswith("_token_id")]


def ends_told(folder: Path, config: dict[str, Any], generation: dict[str, Any]) -> list[str]:
    """What is told where tokenizer_config.json says that texts end with token 4, and others say what is given."""
    bpe_files(folder, added_tokens=[added(4, "<end>"), added(5, "<turn>")])
    write_json(folder, "tokenizer_config.json", {"eos_token": "<end>"})
    write_json(folder, "config.json", config)
    write_json(folder, "generation_config.json", generation)
    tokenizer = read(folder, LLAMA, "gpt-2")
    assert tokenizer.metadata.get("tokenizer.ggml.eos_token_id") == 4
    return [text for text in tokenizer.warnings if "which is taken" in text]


@pytest.mark.parametrize(
    ("config", "generation", "words"),
    [
        ({"eos_token_id": 5}, {}, "config.json says that the eos token is 5, the tokenizer that it is 4"),
        ({"text_config": {"eos_token_id": 5}}, {}, "config.json says that the eos token is 5"),
        ({"eos_token_id": [5, 2]}, {}, r"config.json says that the eos token is \[5, 2\]"),
        ({}, {"eos_token_id": [5, 2]}, r"generation_config.json says that the eos token is \[5, 2\]"),
    ],
)
def test_an_end_that_other_files_say_otherwise_is_told(
    tmp_path: Path, config: dict[str, Any], generation: dict[str, Any], words: str
) -> None:
    (note,) = ends_told(tmp_path, config, generation)
    assert re.search(words, note)


@pytest.mark.parametrize(
    ("config", "generation"),
    [
        ({"eos_token_id": 4}, {"eos_token_id": [5, 4]}),
        ({"eos_token_id": -1}, {"eos_token_id": None}),
        ({}, {"bos_token_id": 5}),
    ],
)
def test_an_end_that_all_files_agree_on_is_not_told(
    tmp_path: Path, config: dict[str, Any], generation: dict[str, Any]
) -> None:
    assert ends_told(tmp_path, config, generation) == []


# Chat templates


def templates(folder: Path) -> tuple[dict[str, str], list[str]]:
    return chat_templates(TokenizerFiles(checkpoint(folder)))


@pytest.mark.parametrize(
    "config", [None, {}, {"chat_template": None}, {"eos_token": "x"}, {"chat_template": [{"name": "default", "template": None}]}]
)  # fmt: skip
@pytest.mark.parametrize("file", ["chat_template.jinja", "chat_template.json"])
def test_a_template_that_is_in_a_file_of_its_own_is_taken(tmp_path: Path, config: object, file: str) -> None:
    if config is not None:
        write_json(tmp_path, "tokenizer_config.json", config)
    text = "{{ messages }}"
    (tmp_path / file).write_text(text if file.endswith("jinja") else json.dumps({"chat_template": text}))
    assert templates(tmp_path) == ({"default": text}, [])


def test_of_two_templates_one_is_taken_and_told(tmp_path: Path) -> None:
    write_json(tmp_path, "tokenizer_config.json", {"chat_template": "one"})
    (tmp_path / "chat_template.jinja").write_text("two")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    write_json(tmp_path, "chat_template.json", {"chat_template": "one"})
    named, (note,) = templates(tmp_path)
    assert named == {"default": "one", "tool_use": "tools"}
    assert "in tokenizer_config.json and the one in chat_template.jinja differ" in note


def test_a_line_end_at_the_end_makes_no_other_template(tmp_path: Path) -> None:
    write_json(tmp_path, "tokenizer_config.json", {"chat_template": "one"})
    (tmp_path / "chat_template.jinja").write_text("one\n")
    assert templates(tmp_path) == ({"default": "one"}, [])


def test_a_template_of_no_use_leaves_the_next_place_its_turn(tmp_path: Path) -> None:
    write_json(tmp_path, "tokenizer_config.json", {"chat_template": [{"name": "default"}, "x"]})
    (tmp_path / "chat_template.jinja").write_text("one")
    named, (note,) = templates(tmp_path)
    assert named == {"default": "one"}
    assert "has no name or no text: ignored" in note


# The tokenizer's class as a witness


@pytest.mark.parametrize(
    ("side", "config", "name"),
    [
        ({"tokenizer_class": "Qwen2TokenizerFast"}, {}, "qwen2"),
        ({"tokenizer_class": None}, {"model_type": "qwen3"}, "qwen2"),
        ({"tokenizer_class": "TokenizersBackend"}, {"model_type": "qwen2_moe"}, "qwen2"),
        ({"tokenizer_class": "GPT2Tokenizer"}, {"model_type": "qwen2"}, "gpt-2"),
    ],
)
@pytest.mark.parametrize("pair", [True, False])
def test_a_refusal_suggests_the_name_that_the_class_has(
    tmp_path: Path, side: object, config: object, name: str, pair: bool
) -> None:
    if pair:
        write_json(tmp_path, "vocab.json", {"a": 0, "b": 1, "Ġ": 2})
        (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    else:
        bpe_files(tmp_path)
    write_json(tmp_path, "tokenizer_config.json", side)
    write_json(tmp_path, "config.json", config)
    with pytest.raises(BadInput) as caught:
        read(tmp_path, BPE)
    assert f"probably --pre {name}." in caught.value.hint


@pytest.mark.slow
def test_the_older_pair_of_files_is_split_as_its_class_splits(tmp_path: Path, reference: Path) -> None:
    for case, kind, name in (
        ("qwen2-realvocab", "Qwen2Tokenizer", "qwen2"),
        ("gpt2-realvocab", "GPT2Tokenizer", "gpt-2"),
    ):
        folder = tmp_path / case
        folder.mkdir()
        model = json.loads(
            (reference / "golden" / "gguf" / case / "hf" / "tokenizer.json").read_text(encoding="utf-8")
        )["model"]
        write_json(folder, "vocab.json", model["vocab"])
        lines = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n", encoding="utf-8")
        write_json(folder, "tokenizer_config.json", {"tokenizer_class": kind})
        assert read(folder, QWEN).metadata.get("tokenizer.ggml.pre") == name


# Whose files are missing


def test_a_merge_without_a_tokenizer_names_its_models(tmp_path: Path) -> None:
    def part(name: str) -> InputFile:
        return InputFile("model.safetensors", tmp_path / name / "model.safetensors", 1, "", 0, 0, 0)

    recipe = InputFile("r.yml", tmp_path / "r.yml", 1, "", 0, 0, 0)
    merged = Checkpoint(tmp_path / "r.yml", {}, {}, (recipe, part("first"), part("tuned"), part("first")), side={})
    with pytest.raises(InputMissing) as caught:
        tokenizer_metadata(merged, {}, LLAMA)
    assert caught.value.message.startswith(f"{tmp_path / 'first'} and {tmp_path / 'tuned'} have no tokenizer.model or")
    assert str(tmp_path / "first") in caught.value.hint


def test_a_file_of_a_models_own_folder_is_named_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    bpe_files(tmp_path / "first", model={"type": "BPE", "vocab": {}})
    side = {"tokenizer.json": tmp_path / "first" / "tokenizer.json"}
    with pytest.raises(BadInput, match=r"first/tokenizer\.json has no vocabulary"):
        tokenizer_metadata(Checkpoint(tmp_path / "r.yml", {}, {}, (), side=side), {}, BPE, pre="gpt-2")


@pytest.mark.parametrize("name", ["qwen.tiktoken", "tiktoken.model", "tekken.json"])
def test_a_tokenizer_of_another_program_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("IQ== 0\n")
    with pytest.raises(BadInput, match=f"only as {name}"):
        read(tmp_path, QWEN)


def test_a_tokenizer_model_of_tiktoken_is_named_and_a_tokenizer_json_beside_it_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    with pytest.raises(BadInput, match=r"tokenizer\.model is a vocabulary of tiktoken"):
        read(tmp_path, LLAMA)
    assert read(bpe_files(tmp_path), LLAMA, "gpt-2").kind == "bpe"


@pytest.mark.parametrize("count", ["2", -1, 1e30, True])
def test_a_number_of_token_types_that_is_none_is_refused(tmp_path: Path, count: object) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\na\n")
    write_json(tmp_path, "config.json", {"type_vocab_size": count})
    with pytest.raises(BadInput, match="type_vocab_size"):
        read(tmp_path, BERT, "bert-bge")


# As runtimes split


#: prints the ids that llama.cpp makes of each text of a JSON list: VOCABULARY.gguf TEXTS.json
LOADER = """
import json, sys, llama_cpp as c
settings = c.llama_model_default_params()
settings.vocab_only = True
vocabulary = c.llama_model_get_vocab(c.llama_model_load_from_file(sys.argv[1].encode(), settings))
found, ids = [], (c.llama_token * 512)()
for text in json.load(open(sys.argv[2])):
    data = text.encode()
    found.append(list(ids[: c.llama_tokenize(vocabulary, data, len(data), ids, 512, False, True)]))
print(json.dumps(found))
"""


@pytest.mark.oracle
def test_llama_cpp_splits_texts_as_the_tokenizer_json_does(tmp_path: Path, data: Path, peers: Path) -> None:
    folder = data / "checkpoints" / "llama-linear-sharded" / "hf"
    (out,) = streamconv.convert(folder, tmp_path / "x.gguf", vocab_only=True)
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pieces = sorted(text.replace("\u2581", " ") for text in library.get_vocab() if not text.startswith("<"))
    chance = random.Random(7)
    texts = ["".join(chance.choices(pieces, k=chance.randint(1, 12))) for _ in range(500)] + [
        "\u00e9\U0001f600 x",
        "  a  b ",
    ]
    write_json(tmp_path, "texts.json", texts)
    command = [str(peers), "-c", LOADER, str(out), str(tmp_path / "texts.json")]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found == [library.encode(text, add_special_tokens=False).ids for text in texts]
