"""XLM-R's vocabulary: Unigram pieces in an order of their own, in sentencepiece.bpe.model or tokenizer.json."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ...sources import sentencepiece
from .files import TokenizerFiles
from .json_model import pieces_of, read_model
from .spm import TYPES
from .vocabulary import UNUSED_SCORE, TokenType, Vocabulary, check_room, token_count

MODEL = "sentencepiece.bpe.model"
#: fairseq's first four tokens, whatever the pieces begin with
_FIRST = ("<s>", "<pad>", "</s>", "<unk>")


def read_xlmr_pieces(
    files: TokenizerFiles, config: Mapping[str, Any], size: int | None, _pre: str | None
) -> Vocabulary:
    """The vocabulary of sentencepiece.bpe.model, with every piece behind the first three one place later.

    Raises
    ------
    BadInput : the file is damaged, or not Unigram
    """
    path = files.called(MODEL)
    data = files.bytes(MODEL) or b""
    texts, scores, types = sentencepiece.read_pieces(data, path)
    settings = sentencepiece.read_settings(data, path)
    if not settings.is_unigram:
        raise BadInput(f"{path} is not a Unigram model", "Put the tokenizer.json of the same model beside it.")
    n_tokens = max(token_count(config, size, len(texts), "vocab_size"), len(texts))
    vocabulary = Vocabulary.empty("t5", "default", str(path), n_tokens, UNUSED_SCORE)
    for index, text in enumerate(_FIRST):
        vocabulary.put(index, text, TokenType.UNKNOWN if text == "<unk>" else TokenType.CONTROL, 0.0)
    for old in range(3, n_tokens - 1):
        if old < len(texts):
            vocabulary.put(old + 1, texts[old], TYPES.get(types[old], TokenType.NORMAL), scores[old])
        else:
            vocabulary.put(old + 1, f"[PAD{old}]", TokenType.UNUSED)
    _settings(vocabulary.more, settings.add_prefix, settings.remove_spaces, settings.characters)
    return vocabulary


def read_xlmr_json(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, _pre: str | None) -> Vocabulary:
    """The vocabulary of a tokenizer.json that holds a Unigram model.

    Raises
    ------
    BadInput : the file is damaged or has more tokens than the model
    """
    path, model = read_model(files, "Unigram")
    pieces = pieces_of(model, path)
    added = {token.id: token for token in files.added_tokens}
    needed = max(len(pieces), *added, 0)
    n_tokens = max(token_count(config, size, len(pieces), "vocab_size"), len(pieces))
    check_room(path, needed, n_tokens)
    vocabulary = Vocabulary.empty("t5", "default", str(path), n_tokens, UNUSED_SCORE)
    unknown = next((n for n, token in added.items() if token.text == files.special_text("unk")), model.get("unk_id"))
    for index, (text, score) in enumerate(pieces):
        kind = TokenType.NORMAL
        if index == (3 if unknown is None else unknown):
            kind = TokenType.UNKNOWN
        elif index in added:
            kind = TokenType.CONTROL if added[index].special else TokenType.USER_DEFINED
        vocabulary.put(index, text, kind, float(score))
    prefix = files.flag("add_prefix_space")
    spaces = files.tokenizer_config.get("clean_up_tokenization_spaces")
    _settings(vocabulary.more, bool(prefix), bool(spaces), _characters(files))
    return vocabulary


def _characters(files: TokenizerFiles) -> bytes:
    """What characters become before, compiled, of whichever step of the normalizer says so."""
    for step in _steps(files.tokenizer_head.get("normalizer")):
        if isinstance(text := step.get("precompiled_charsmap"), str):
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error:
                raise BadInput(f"{files.called('tokenizer.json')}: precompiled_charsmap is not base64") from None
    return b""


def _steps(entry: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(entry, Mapping):
        yield entry
        inner = entry.get("normalizers")
        for step in inner if isinstance(inner, list) else ():
            yield from _steps(step)


def _settings(more: Metadata, prefix: bool, spaces: bool, characters: bytes) -> None:
    more.boolean("tokenizer.ggml.add_space_prefix", prefix)
    more.boolean("tokenizer.ggml.remove_extra_whitespaces", spaces)
    more.array("tokenizer.ggml.precompiled_charsmap", "UINT8", list(characters))
