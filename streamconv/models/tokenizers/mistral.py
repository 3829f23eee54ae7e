"""Mistral's own vocabularies: tekken.json, and SentencePiece models whose names end with a version.

They say all of a tokenizer, so that no other file counts. A chat template is in neither: where the model brings none the one that
fits the version is written, by its name where runtimes know that.
"""

from __future__ import annotations

import base64
import binascii
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ...sources import sentencepiece
from ...sources.naming import shown
from .bpe import packed
from .brought_along import brought_template
from .files import TokenizerFiles, token_id
from .packed import PackedStrings
from .rules import TokenizerRule
from .special import id_key
from .spm import TYPES
from .tiktoken import byte_text
from .vocabulary import TokenType, Vocabulary, check_room

TEKKEN, PIECES = "tekken.json", "tokenizer.model*"
#: of a tekken.json that lists none
_CLASSIC = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
    "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
_SPECIAL = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
#: version -> the template with tekken.json and without: the name that runtimes know it by
_NAMED = {
    "v1": ("mistral-v1", "mistral-v1"), "v3": ("mistral-v3-tekken", "mistral-v3"), "v7": ("mistral-v7-tekken", "mistral-v7"),
}  # fmt: skip
#: versions whose template has no name -> what stands for it
_BROUGHT = {"v11": "mistral-v11", "v13": "mistral-v13"}


def read_tekken(files: TokenizerFiles, _config: Mapping[str, Any], _size: int | None, pre: str | None) -> Vocabulary:
    """The vocabulary of tekken.json, which is byte-level BPE: special tokens before the ranks.

    Raises
    ------
    BadInput : the file is damaged
    """
    path = files.called(TEKKEN)
    found = files.json(TEKKEN) or {}
    settings = found.get("config")
    if not isinstance(settings, Mapping):
        raise BadInput(f"{path} has no 'config'", "It is not a vocabulary of Mistral's.")
    n_tokens, n_special = (_count(settings, f"default_{key}", path) for key in ("vocab_size", "num_special_tokens"))
    check_room(path, max(n_tokens, n_special), n_tokens)
    texts = _special_texts(found.get("special_tokens"), n_special, path)
    ranks = _ranks(found.get("vocab"), n_tokens - n_special, path)
    vocabulary = Vocabulary.empty("gpt2", pre or "tekken", str(path), n_tokens)
    vocabulary.scores = array("i", [0]) * n_tokens
    for index, text in enumerate(texts):
        vocabulary.put(index, text, TokenType.CONTROL)
    for token, rank in ranks.items():
        vocabulary.put(n_special + rank, byte_text(token), TokenType.NORMAL)
    vocabulary.merges = _merges(ranks, path)
    by_text = {text: index for index, text in enumerate(texts)}
    ids = {kind: by_text.get(text) for kind, text in _SPECIAL.items()}
    return _completed(vocabulary, ids, str(settings.get("version")), 0)


def read_versioned(
    files: TokenizerFiles, _config: Mapping[str, Any], _size: int | None, _pre: str | None
) -> Vocabulary:
    """The vocabulary of tokenizer.model.v3 and the like, the last by name; one without a version is the first version's.

    Raises
    ------
    BadInput : the file is damaged
    """
    name = files.names(PIECES)[-1]
    path = files.called(name)
    texts, scores, types = sentencepiece.read_pieces(files.bytes(name) or b"", path)
    vocabulary = Vocabulary.empty("llama", "", str(path), len(texts), 0.0)
    for index, text in enumerate(texts):
        vocabulary.put(index, text, TYPES.get(types[index], TokenType.NORMAL), scores[index])
    special = {text: i for i, text in enumerate(texts) if types[i] in (sentencepiece.CONTROL, sentencepiece.UNKNOWN)}
    ids = {kind: special.get(text) for kind, text in _SPECIAL.items()}
    version = name.removeprefix("tokenizer.model").lstrip(".") or "v1"
    return _completed(vocabulary, ids, version.partition("m")[0], 1)


def _completed(vocabulary: Vocabulary, ids: dict[str, int | None], version: str, column: int) -> Vocabulary:
    """``vocabulary`` with the keys of its special tokens and the name of its template."""
    ids["pad"] = ids["eos"] if ids["pad"] is None else ids["pad"]
    vocabulary.specials = Metadata()
    for kind, index in ids.items():
        if index is not None:
            vocabulary.specials.u32(id_key(kind), index)
    vocabulary.specials.boolean("tokenizer.ggml.add_bos_token", True)
    vocabulary.specials.boolean("tokenizer.ggml.add_eos_token", False)
    vocabulary.template = (
        brought_template(_BROUGHT[version]) if version in _BROUGHT else _NAMED.get(version, ("", ""))[column]
    )
    return vocabulary


def _count(settings: Mapping[str, Any], key: str, path: Path) -> int:
    value = token_id(settings.get(key))
    if value is None or value < 0:
        raise BadInput(f"{path}: {key!r} is {shown(repr(settings.get(key)))}, not a number of tokens")
    return value


def _special_texts(listed: Any, n_special: int, path: Path) -> Sequence[str]:
    """Texts by rank; those that are not listed are fillers."""
    if listed is None:
        listed = [{"rank": rank, "token_str": text} for rank, text in enumerate(_CLASSIC)]
    texts = [f"<SPECIAL_{rank}>" for rank in range(n_special)]
    seen: set[int] = set()
    for entry in listed if isinstance(listed, list) else [listed]:
        known: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {}
        rank, text = token_id(known.get("rank")), known.get("token_str")
        if rank is None or not isinstance(text, str) or not 0 <= rank < n_special or rank in seen:
            raise BadInput(
                f"{path}: {shown(repr(entry))} of 'special_tokens' has no rank of its own below {n_special}, or no text"
            )
        texts[rank] = text
        seen.add(rank)
    return texts


def _ranks(entries: Any, n_ranks: int, path: Path) -> dict[bytes, int]:
    """Bytes of a token -> rank, for the first ``n_ranks``."""
    ranks: dict[bytes, int] = {}
    if not isinstance(entries, list) or len(entries) < n_ranks:
        n_there = len(entries) if isinstance(entries, list) else 0
        raise BadInput(f"{path}: 'vocab' has {n_there} tokens, 'config' says {n_ranks}", "Fetch it again.")
    for number, entry in enumerate(entries[:n_ranks]):
        try:
            token = base64.b64decode(entry["token_bytes"], validate=True)
            if entry["rank"] != number or ranks.setdefault(token, number) != number or not token:
                raise ValueError
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise BadInput(
                f"{path}: entry {number} of 'vocab' is not a token in base64 that is new, and its rank"
            ) from None
    return ranks


def _merges(ranks: Mapping[bytes, int], path: Path) -> PackedStrings:
    """All ways in which a token is made of two others, token after token."""

    def pairs(token: bytes) -> list[tuple[int, int, bytes, bytes]]:
        parts = ((token[:i], token[i:]) for i in range(1, len(token)))
        return sorted((ranks[a], ranks[b], a, b) for a, b in parts if a in ranks and b in ranks)

    made = (pair for token, rank in ranks.items() if rank >= 256 for pair in pairs(token))
    return packed((f"{byte_text(a)} {byte_text(b)}" for _, _, a, b in made), path)


MISTRAL = TokenizerRule(
    ("tekken", "versioned"), own={"tekken": (TEKKEN, read_tekken), "versioned": (PIECES, read_versioned)}
)
