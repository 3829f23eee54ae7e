"""The readers behind tokenizer metadata, one by one, against the libraries that own the formats."""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_cases import added, bpe_files, checkpoint, read, spm_file, write_json

from streamconv.errors import BadInput
from streamconv.metadata import Metadata
from streamconv.models.tokenizers import BPE, LLAMA, SPM, PackedStrings, pretokenizer
from streamconv.models.tokenizers.chat_template import chat_templates, write_chat_templates
from streamconv.models.tokenizers.encode_check import answer
from streamconv.models.tokenizers.files import TokenizerFiles
from streamconv.models.tokenizers.pretokenizer import candidates, check_name, known_names, name_of_ids
from streamconv.models.tokenizers.special import SpecialTokens, normalizing
from streamconv.models.tokenizers.vocabulary import TokenType
from streamconv.sources.sentencepiece import USER_DEFINED, read_pieces

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = TokenType


def tokens(metadata: Metadata) -> list[tuple[str, int]]:
    texts, types = (metadata.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    return list(zip(texts, types, strict=True))


# Packed strings


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_packed_strings_are_a_sequence_of_the_same_strings(texts: list[str]) -> None:
    packed = PackedStrings(texts)
    assert packed == texts
    assert list(packed) == texts
    assert [packed[i] for i in range(-len(texts), len(texts))] == texts + texts
    assert packed[1:] == texts[1:]
    assert packed == PackedStrings(iter(texts))


def test_packed_strings_end() -> None:
    packed = PackedStrings(["a", "b"])
    for index in (2, -3):
        with pytest.raises(IndexError):
            packed[index]
    assert packed != ["a"]
    assert packed != 3


# SentencePiece


def test_pieces_are_those_the_library_reads(data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from sentencepiece import SentencePieceProcessor
    for path in sorted(data.glob("tokenizers/*/tokenizer.model")):
        library = SentencePieceProcessor()
        library.LoadFromFile(str(path))
        texts, scores, types = read_pieces(path.read_bytes(), path)
        ids = range(library.vocab_size())
        assert texts == [library.IdToPiece(i) for i in ids]
        assert list(scores) == [library.GetScore(i) for i in ids]
        asks = {UNKNOWN: library.IsUnknown, CONTROL: library.IsControl, UNUSED: library.IsUnused, BYTE: library.IsByte}
        ours = [NORMAL if kind == USER_DEFINED else kind for kind in types]  # the library has no question for them
        assert ours == [next((k for k, ask in asks.items() if ask(i)), NORMAL) for i in ids]


@settings(max_examples=60)
@given(cut=st.integers(0, 7932), flip=st.integers(0, 7932), byte=st.integers(0, 255))
def test_a_damaged_model_is_bad_input_or_reads(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int, byte: int
) -> None:
    whole = bytearray((Path(__file__).parent.parent / "data/tokenizers/llama2-spm/tokenizer.model").read_bytes())
    whole[flip] = byte
    path = tmp_path_factory.mktemp("spm") / "tokenizer.model"
    path.write_bytes(whole[:cut])
    with suppress(BadInput):
        texts, scores, types = read_pieces(path.read_bytes(), path)
        assert len(texts) == len(scores) == len(types) > 0


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 40, b"IQ== 0\nIg== 1\n", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
)
def test_other_files_called_tokenizer_model_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(BadInput, match=r"tokenizer\.model"):
        read(tmp_path, SPM)


def test_a_git_lfs_pointer_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(BadInput, match="git lfs pull"):
        read(tmp_path, SPM)


def test_added_tokens_lie_over_the_pieces(tmp_path: Path) -> None:
    spm_file(tmp_path, ("<unk>", 0, 2), ("▁a", -1, 1), ("<0x41>", 0, 6), ("me", 0, 4), ("gone", 0, 5))
    write_json(tmp_path, "config.json", {"vocab_size": 9})
    write_json(tmp_path, "added_tokens.json", {"<from file>": 5, "<beyond>": 9})
    declared = {"6": {"content": "▁b▁"}, "7": {"content": "<|x|>"}, "1": {"content": "over", "special": True}}
    write_json(tmp_path, "tokenizer_config.json", {"added_tokens_decoder": declared})
    found = read(tmp_path, SPM)
    assert tokens(found.metadata) == [
        ("<unk>", UNKNOWN), ("over", CONTROL), ("<0x41>", BYTE), ("me", NORMAL), ("gone", UNUSED), ("<from file>", USER),
        (" b ", USER), ("<|x|>", CONTROL), ("[PAD8]", UNUSED),
    ]  # fmt: skip
    assert list(found.metadata.get("tokenizer.ggml.scores")) == [0, -1000, 0, 0, 0, -1000, -1000, -1000, -10000]
    assert found.warnings == ["1 added tokens have ids beyond the vocabulary of 9: left out"]


def test_more_pieces_than_rows_are_cut_with_a_warning(tmp_path: Path) -> None:
    spm_file(tmp_path, ("<unk>", 0, 2), ("a", -1, 1), ("b", -2, 1))
    write_json(tmp_path, "config.json", {"vocab_size": 512, "vocab_size_per_layer_input": 2})
    found = read(tmp_path, SPM)
    assert found.n_tokens == 2
    assert "the last 1 are left out" in found.warnings[0]


# Byte-level BPE


def test_added_tokens_are_decoded_and_typed(tmp_path: Path) -> None:
    more = [
        added(4, "<|end|>", special=False),
        added(5, "<think>", special=False),
        added(6, "Ġtwo", special=False),
        added(7, "Ġraw", special=False, normalized=True),
        added(8, "▁▁", special=False),
        added(9, "plain"),
    ]
    found = read(bpe_files(tmp_path, added_tokens=more), BPE, "gpt-2").metadata
    assert tokens(found)[4:] == [
        ("<|end|>", CONTROL), ("<think>", USER), (" two", USER), ("Ġraw", USER), ("  ", USER), ("plain", CONTROL),
    ]  # fmt: skip


def test_a_sequence_of_decoders_is_followed(tmp_path: Path) -> None:
    decoder = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "_"}, "content": " "}]}
    found = read(bpe_files(tmp_path, decoder=decoder, added_tokens=[added(4, "a_b", special=False)]), BPE, "gpt-2")
    assert tokens(found.metadata)[4] == ("a b", USER)


def test_tokens_only_tokenizer_config_knows_are_completed_as_transformers_does(tmp_path: Path) -> None:
    write_json(bpe_files(tmp_path), "config.json", {"vocab_size": 8})
    declared = {"5": {"content": "<tool>", "special": False}, "3": {"content": "clash"}}
    config = {"added_tokens_decoder": declared, "pad_token": "<pad>", "unk_token": "b", "sep_token": "<|end|>"}
    write_json(tmp_path, "tokenizer_config.json", config)
    found = read(tmp_path, BPE, "gpt-2")
    assert tokens(found.metadata) == [
        ("a", NORMAL), ("b", CONTROL), ("Ġ", NORMAL), ("ab", NORMAL), ("<|end|>", CONTROL), ("<tool>", USER),
        ("<pad>", CONTROL), ("[PAD7]", UNUSED),
    ]  # fmt: skip
    assert "'clash' is ignored" in found.warnings[0]
    write_json(tmp_path, "config.json", {"vocab_size": 6})
    assert "'<pad>' is left out" in read(tmp_path, BPE, "gpt-2").warnings[-1]


def test_both_spellings_of_merges_are_read_and_blanks_encoded(tmp_path: Path) -> None:
    vocab = {"a": 0, "b": 1}
    for merges, want in (
        (["a b", "ab c"], ["a b", "ab c"]),
        ([["a", "b"], ["a b", " "]], ["a b", "aĠb Ġ"]),
    ):
        bpe_files(tmp_path, model={"type": "BPE", "vocab": vocab, "merges": merges}, added_tokens=[])
        assert list(read(tmp_path, BPE, "gpt-2").metadata.get("tokenizer.ggml.merges")) == want


def test_the_older_pair_of_files_is_read(tmp_path: Path) -> None:
    write_json(tmp_path, "vocab.json", {"a": 0, "b": 1, "ab": 2})
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n\nodd\n")
    found = read(tmp_path, BPE, "gpt-2")
    assert tokens(found.metadata) == [("a", NORMAL), ("b", NORMAL), ("ab", NORMAL)]
    assert list(found.metadata.get("tokenizer.ggml.merges")) == ["a b"]
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(BadInput, match=r"vocab\.json: no known model"):
        read(tmp_path, BPE)


def test_a_vocabulary_without_merges_warns(tmp_path: Path) -> None:
    bpe_files(tmp_path, model={"type": "BPE", "vocab": {"a": 0}, "merges": []}, added_tokens=[])
    assert "no merges" in read(tmp_path, BPE, "gpt-2").warnings[0]


# Llama from tokenizer.json


def test_byte_fallback_vocabularies_are_filled_to_the_rows_of_the_model(tmp_path: Path) -> None:
    model = {"type": "BPE", "byte_fallback": True, "vocab": {"<unk>": 0, "<0x0A>": 1, "▁a": 2}, "merges": []}
    steps = {"type": "Sequence", "decoders": [{"type": "Fuse"}]}
    more = [added(3, "<tool>", special=False), added(0, "<unk>")]
    bpe_files(tmp_path, model=model, pre_tokenizer=None, decoder=steps, added_tokens=more)
    write_json(tmp_path, "config.json", {"vocab_size": 5})
    found = read(tmp_path, LLAMA)
    assert found.kind == "spm"
    assert tokens(found.metadata) == [
        ("<unk>", CONTROL), ("<0x0A>", BYTE), ("▁a", NORMAL), ("<tool>", USER), ("[PAD4]", UNUSED),
    ]  # fmt: skip
    assert list(found.metadata.get("tokenizer.ggml.scores")) == [0, 0, 0, -1000, -10000]
    assert "tokenizer.ggml.merges" not in found.metadata
    assert "1 unused ones are added" in found.warnings[0]


# tokenizer.json without its vocabulary


def test_the_head_of_tokenizer_json_is_that_of_the_whole(data: Path, tmp_path: Path) -> None:
    for path in sorted(data.glob("tokenizers/*/tokenizer.json")):
        whole = json.loads(path.read_text(encoding="utf-8"))
        model = whole.pop("model")
        assert TokenizerFiles(checkpoint(path.parent)).tokenizer_head == whole
        write_json(tmp_path, "tokenizer.json", {"model": model, **whole})  # an order nobody writes
        assert TokenizerFiles(checkpoint(tmp_path)).tokenizer_head == whole


def test_a_key_called_model_deeper_down_does_not_cut_the_head(tmp_path: Path) -> None:
    inner = {"type": "Sequence", "processors": [{"type": "Other", "model": {"a": 1}}]}
    bpe_files(tmp_path, post_processor=inner, padding={"model": 3})
    assert TokenizerFiles(checkpoint(tmp_path)).tokenizer_head["post_processor"] == inner


# Special tokens


def special_tokens(token: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": 0}}


def random_template(rng: random.Random, texts: list[str]) -> dict[str, Any]:
    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    first, last = ([special_tokens(t)] if (t := rng.choice([*texts, ""])) else [] for _ in range(2))
    middle = [special_tokens(rng.choice(texts)) for _ in range(rng.randrange(4))]
    pair = rng.choice([[], [*first, a, *middle, b, *last], [a, *middle, b]])
    return {"type": "TemplateProcessing", "single": [*first, a, *last], "pair": pair, "special_tokens": {}}


@pytest.mark.parametrize("seed", range(120))
def test_special_ids_flags_and_templates_are_those_of_the_gguf_package(tmp_path: Path, seed: int) -> None:
    gguf = pytest.importorskip("gguf")
    rng = random.Random(seed)
    texts = ["<s>", "</s>", "<pad>", "<sep>", "<cls>", "<unk>"]
    kinds = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    template = random_template(rng, texts)
    processor = rng.choice([None, template, {"type": "Sequence", "processors": [{"type": "Other"}, template]}])
    listed = [added(i, text) for i, text in enumerate(texts) if rng.random() < 0.8]
    if rng.random() < 0.9:
        bpe_files(tmp_path, added_tokens=listed, post_processor=processor)
    named: dict[str, Any] = {f"{kind}_token": rng.choice(texts) for kind in kinds if rng.random() < 0.5}
    several = [{"name": "default", "template": "a"}, {"name": "x y", "template": "b"}]
    if rng.random() < 0.4:
        named["chat_template"] = rng.choice(["inline", several])
    write_json(tmp_path, "tokenizer_config.json", named)
    (tmp_path / rng.choice(["chat_template.jinja", "unrelated"])).write_text("jinja")
    write_json(tmp_path, rng.choice(["chat_template.json", "other.json"]), {"chat_template": "json"})
    ids: dict[str, Any] = {
        f"{kind}_token_id": rng.choice([1, 300, [1, 2], None]) for kind in kinds if rng.random() < 0.5
    }
    write_json(tmp_path, "config.json", {**ids, "text_config": {"eos_token_id": 3}})
    n_tokens = rng.choice([None, 100])

    writer = gguf.GGUFWriter(None, "llama")
    gguf.SpecialVocab(tmp_path, load_merges=False, n_vocab=n_tokens).add_to_gguf(writer, quiet=True)
    files, found = TokenizerFiles(checkpoint(tmp_path)), Metadata()
    SpecialTokens(files, n_tokens).write(found)
    write_chat_templates(chat_templates(files)[0], found)
    want = [(k, v.value) for k, v in writer.kv_data[0].items() if k != "general.architecture"]
    assert [(key, value.value) for key, value in found.items()] == want


def test_the_byte_level_step_adds_nothing_unless_a_template_says_so(tmp_path: Path) -> None:
    steps = [
        {"type": "ByteLevel"},
        {"type": "TemplateProcessing", "single": [special_tokens("<s>"), {"Sequence": {"id": "A"}}]},
    ]
    bpe_files(tmp_path, post_processor={"type": "Sequence", "processors": steps})
    write_json(tmp_path, "tokenizer_config.json", {"bos_token": {"content": "<s>"}, "add_eos_token": True})
    found = SpecialTokens(TokenizerFiles(checkpoint(tmp_path)), None)
    assert found.flags == {"bos": True, "eos": False}
    assert "tokenizer.json is followed" in found.warnings[0]


def test_a_negative_id_is_left_out_with_a_warning(tmp_path: Path) -> None:
    write_json(bpe_files(tmp_path), "config.json", {"pad_token_id": -1})
    found = read(tmp_path, BPE, "gpt-2")
    assert "tokenizer.ggml.padding_token_id" not in found.metadata
    assert "the pad token has the id -1" in found.warnings[0]


def test_what_a_normalizer_does_to_letters_is_found_in_all_its_spellings() -> None:
    assert normalizing({"type": "Lowercase"}) == {"lowercase": True}
    assert normalizing({"type": "Sequence", "normalizers": [{"type": "StripAccents"}, {"type": "Lowercase"}]}) == {
        "lowercase": True, "strip_accents": True,
    }  # fmt: skip
    bert = {"type": "BertNormalizer", "lowercase": False, "strip_accents": False}
    assert normalizing(bert) == {"lowercase": False, "strip_accents": False}
    assert normalizing({**bert, "strip_accents": None}) == {"lowercase": False}
    for nothing in (None, {"type": "NFC"}, {"type": "BertNormalizer"}, {"type": "Sequence", "normalizers": None}, []):
        assert normalizing(nothing) == {}


# Chat templates


def test_additional_templates_join_the_plain_one(tmp_path: Path) -> None:
    write_json(tmp_path, "tokenizer_config.json", {"x": 1})
    (tmp_path / "chat_template.jinja").write_text("plain")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool-use.jinja").write_text("tools")
    found = Metadata()
    write_chat_templates(chat_templates(TokenizerFiles(checkpoint(tmp_path)))[0], found)
    assert [(key, value.value) for key, value in found.items()] == [
        ("tokenizer.chat_template.tool_use", "tools"),
        ("tokenizer.chat_templates", ["tool_use"]),
        ("tokenizer.chat_template", "plain"),
    ]


@pytest.mark.parametrize("value", [7, {"a": 1}, "\ud800"])
def test_templates_of_no_use_are_ignored_with_a_warning(tmp_path: Path, value: object) -> None:
    write_json(tmp_path, "tokenizer_config.json", {"chat_template": value})
    templates, notes = chat_templates(TokenizerFiles(checkpoint(tmp_path)))
    assert templates == {}
    assert "ignored" in notes[0]


# The pre-tokenizer's name


def test_the_id_list_of_a_known_vocabulary_gives_its_name(reference: Path) -> None:
    for case in ("gpt2-realvocab", "qwen2-realvocab"):
        known = json.loads((reference / "golden" / "gguf" / case / "pretokenizer-check.json").read_text())
        assert name_of_ids(known["check_text_ids"]) == (known["pre"], known["sha256"])


def test_the_child_answers_with_ids_or_an_error(data: Path, tmp_path: Path) -> None:
    folder = data / "tokenizers" / "llama3-bpe"
    found = answer({"file": str(folder / "tokenizer.json"), "text": "a b"})
    assert found["ids"] == [500, *found["plain"]]  # the template puts <|begin_of_text|> in front
    assert "error" in answer({"file": str(tmp_path / "absent.json"), "text": ""})


def test_names_and_hints() -> None:
    assert "llama-bpe" in known_names()
    assert check_name("qwen2") == "qwen2"
    split = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\p{N}{1,3}|\s+"}}
    assert candidates({"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel"}]})[0] == "llama-bpe"
    assert candidates(None) == []


@pytest.mark.parametrize("known", [[7, 8], [1, 7, 8], [7, 8, 2], [1, 7, 8, 2], [3, 7, 8, 3]])
def test_a_template_of_other_special_tokens_does_not_hide_a_known_model(
    known: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(str(known).encode()).hexdigest()
    monkeypatch.setattr(pretokenizer, "_table", lambda: {"hashes": {digest: "its-name"}, "names": []})
    monkeypatch.setattr(pretokenizer.Detection, "answer", lambda self: {"ids": [3, 7, 8, 3], "plain": [7, 8]})
    detection = object.__new__(pretokenizer.Detection)
    assert detection.name(bos=1, eos=2) == "its-name"
