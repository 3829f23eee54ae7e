"""Readers of vocabularies that few families have."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from streamconv.errors import BadInput
from streamconv.models.families.stablelm import read_arcade
from streamconv.models.tokenizers import CHATGLM, tokenizer_metadata
from streamconv.models.tokenizers.files import TokenizerFiles
from streamconv.models.tokenizers.gemma4 import read_gemma4
from streamconv.models.tokenizers.internlm2 import read_internlm2
from streamconv.models.tokenizers.phi3 import read_phi3
from streamconv.models.tokenizers.tiktoken import read_tiktoken
from streamconv.models.tokenizers.vocabulary import TokenType
from streamconv.sources.checkpoint import Checkpoint


def files_of(folder: Path, **contents: Any) -> TokenizerFiles:
    """Files whose names have ``__`` for a dot: bytes, a text, or an object as JSON."""
    for name, content in contents.items():
        path = folder / name.replace("__", ".")
        raw = content if isinstance(content, bytes) else content if isinstance(content, str) else json.dumps(content)
        path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return TokenizerFiles(Checkpoint(folder, {}, {}, ()))


def spm(data: Path) -> bytes:
    return (data / "checkpoints" / "mistral-spm" / "hf" / "tokenizer.model").read_bytes()


def ranks(*tokens: bytes) -> str:
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))


def test_merges_of_tiktoken_are_what_lower_ranks_leave(tmp_path: Path) -> None:
    files = files_of(tmp_path, x__tiktoken=ranks(b"a", b"b", b" ", b"ab", b"abab", b"bab"))
    found = read_tiktoken(files, {"vocab_size": 10}, None, "x.tiktoken", ["<|end|>", "<|pad|>"], "qwen2")
    found.ids()
    assert found.texts == ["a", "b", "Ġ", "ab", "abab", "bab", "<|end|>", "<|pad|>", "[PAD8]", "[PAD9]"]
    assert list(found.types)[5:] == [1, 3, 3, 5, 5]
    assert list(found.merges or ()) == ["a b", "ab ab", "b ab"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\n", "has no tokens"), ("YQ== 0\nYQ== 1\n", "line 2 has rank 1"), ("YQ== 1\n", "line 1 has rank 1"),
        ("YQ== x\n", "line 1"), ("? 0\n", "line 1"), ("YQ==\n", "line 1"),
    ],
)  # fmt: skip
def test_a_damaged_file_of_tiktoken_is_refused_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        read_tiktoken(files_of(tmp_path, x__tiktoken=text), {}, None, "x.tiktoken", [], "qwen2")


def test_more_ranks_than_the_model_has_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="beyond the model's vocabulary of 1"):
        read_tiktoken(
            files_of(tmp_path, x__tiktoken=ranks(b"a", b"b")), {"vocab_size": 1}, None, "x.tiktoken", [], "qwen2"
        )


def test_the_tokenizer_model_of_glm_4_is_of_tiktoken_and_its_config_names_what_follows(tmp_path: Path) -> None:
    named = {str(n): {"content": text, "special": True} for n, text in ((3, "<|endoftext|>"), (5, "<|user|>"))}
    files_of(
        tmp_path, tokenizer__model=ranks(b"a", b"b", b"ab"), tokenizer_config__json={"added_tokens_decoder": named}
    )
    found = tokenizer_metadata(Checkpoint(tmp_path, {}, {}, ()), {}, CHATGLM, vocab_size=7).metadata
    assert found.get("tokenizer.ggml.pre") == "chatglm-bpe"
    assert list(found.get("tokenizer.ggml.tokens")) == ["a", "b", "ab", "<|endoftext|>", "[PAD4]", "<|user|>", "[PAD6]"]
    assert list(found.get("tokenizer.ggml.token_type")) == [1, 1, 1, 3, 5, 3, 5]
    assert list(found.get("tokenizer.ggml.merges")) == ["a b"]


def test_the_special_tokens_of_the_first_stablelm_2_lie_where_its_code_has_them(tmp_path: Path) -> None:
    files = files_of(tmp_path, arcade100k__tiktoken=ranks(b"a", b"b", b"ab"))
    found = read_arcade(files, {"vocab_size": 100352}, None, None)
    texts = [found.texts[n] for n in (100256, 100257, 100278, 100288, 100289)]
    assert texts == [None, "<|endoftext|>", "<|im_end|>", "<|extra0|>", None]
    assert found.pre == "stablelm2"
    assert found.more.get("tokenizer.ggml.unknown_token_id") == 100257


GEMMA_4 = {
    "model": {
        "type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "merges": [["▁", "a"]],
        "vocab": {"<unk>": 0, "<bos>": 1, "<|image|>": 2, "<|channel>": 3, "<0x0A>": 4, "▁": 5, "a": 6, "▁a": 7},
    },
    "added_tokens": [
        {"id": n, "content": text, "special": special}
        for n, text, special in (
            (0, "<unk>", True), (1, "<bos>", True), (2, "<|image|>", True), (3, "<|channel>", False), (8, "<x>", True),
        )
    ],
}  # fmt: skip


def test_tokens_of_gemma_4_are_special_where_the_tokenizer_names_them(tmp_path: Path) -> None:
    """Those that only the list of added tokens calls so are not, as in the reference."""
    settings = {"bos_token": "<bos>", "unk_token": "<unk>"}
    found = read_gemma4(files_of(tmp_path, tokenizer__json=GEMMA_4, tokenizer_config__json=settings), {}, None, None)
    kinds = dict(zip(found.texts, map(TokenType, found.types), strict=True))
    assert kinds == {
        "<unk>": TokenType.CONTROL, "<bos>": TokenType.CONTROL, "<|image|>": TokenType.NORMAL, "<|channel>": TokenType.USER_DEFINED,
        "<0x0A>": TokenType.BYTE, "▁": TokenType.NORMAL, "a": TokenType.NORMAL, "▁a": TokenType.NORMAL,
        "<x>": TokenType.USER_DEFINED,
    }  # fmt: skip
    assert (found.model, found.pre, list(found.merges or ())) == ("gemma4", "", ["▁ a"])
    named = {**settings, "image_token": "<|image|>"}
    found = read_gemma4(files_of(tmp_path, tokenizer_config__json=named), {}, None, None)
    assert found.types[2] == TokenType.CONTROL


def test_of_the_tokens_that_files_add_to_phi_3_the_last_file_is_taken(data: Path, tmp_path: Path) -> None:
    files = files_of(
        tmp_path,
        tokenizer__model=spm(data),
        added_tokens__json={"<first>": 513, "<|a|>": 514},
        tokenizer_config__json={"added_tokens_decoder": {"513": {"content": "<second>", "special": False}}},
        tokenizer__json={"added_tokens": [{"id": 513, "content": "▁third", "special": True}]},
    )
    found = read_phi3(files, {"vocab_size": 516}, None, None)
    assert (found.texts[513], found.types[513]) == ("▁third", TokenType.CONTROL)
    assert (found.texts[514], found.types[514]) == ("<|a|>", TokenType.USER_DEFINED)


def test_a_token_beyond_the_vocabulary_of_phi_3_is_refused(data: Path, tmp_path: Path) -> None:
    files = files_of(tmp_path, tokenizer__model=spm(data), added_tokens__json={"<far>": 516})
    with pytest.raises(BadInput, match=re.escape("'<far>' has id 516, beyond the vocabulary of 516")):
        read_phi3(files, {"vocab_size": 516}, None, None)


def test_tokens_of_internlm_2_beyond_its_rows_are_left_out_and_told(data: Path, tmp_path: Path) -> None:
    files = files_of(tmp_path, tokenizer__model=spm(data), added_tokens__json={"<near>": 510, "<far>": 516})
    found = read_internlm2(files, {"vocab_size": 516}, None, None)
    assert (found.texts[510], found.types[510]) == ("<near>", TokenType.USER_DEFINED)
    assert any("'<far>' is left out" in warning for warning in found.warnings)
    assert found.more.get("tokenizer.ggml.add_space_prefix") is True
