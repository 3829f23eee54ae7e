"""SentencePiece models: ``tokenizer.model`` and the tokens added beside it.

The file is a protobuf of which three small messages matter, so it is read here directly: 15 MB of library and a
call per token and property are saved. Fields (sentencepiece_model.proto): ModelProto.pieces = 1,
ModelProto.normalizer_spec = 3; SentencePiece.piece = 1, .score = 2, .type = 3.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import BadInput
from .files import TokenizerFiles
from .vocabulary import TokenType, Vocabulary, added_token, token_count

#: SentencePiece.Type -> ours. A user-defined piece (4) is an ordinary token to the loaders.
_PIECE_TYPES = {
    2: TokenType.UNKNOWN,
    3: TokenType.CONTROL,
    5: TokenType.UNUSED,
    6: TokenType.BYTE,
}
_UNUSED_SCORE = -10000.0
_ADDED_SCORE = -1000.0


def read_spm(files: TokenizerFiles, config: Mapping[str, Any], vocab_size: int | None) -> Vocabulary:
    """The vocabulary of ``tokenizer.model``, overlaid with added_tokens.json and tokenizer_config.json.

    Parameters
    ----------
    config : the normalised model configuration
    vocab_size : number of tokens; by default the configuration's, else as many as the model has

    Raises
    ------
    BadInput : a file is damaged
    """
    path = files.folder / "tokenizer.model"
    texts, scores, types = read_pieces(files.bytes("tokenizer.model") or b"", path)
    n_tokens = token_count(config, vocab_size, len(texts), "vocab_size_per_layer_input", "vocab_size")
    vocabulary = Vocabulary.empty("llama", "default", str(path), n_tokens, _UNUSED_SCORE)
    kept = min(n_tokens, len(texts))
    vocabulary.texts[:kept] = texts[:kept]
    vocabulary.types[:kept] = types[:kept]
    if vocabulary.scores is not None:
        vocabulary.scores[:kept] = scores[:kept]
    if kept < len(texts):
        vocabulary.warnings.append(
            f"{path} has {len(texts)} tokens, the model only {n_tokens}: the last {len(texts) - kept} are left out"
        )
    ignored = 0
    for text, index in _added_tokens_json(files):
        if index < n_tokens:
            vocabulary.put(index, text, TokenType.USER_DEFINED, _ADDED_SCORE)
        else:
            ignored += 1
    for token in files.declared_tokens:
        if token.id < n_tokens:
            vocabulary.put(token.id, *added_token(token.text, token.special), _ADDED_SCORE)
        else:
            ignored += 1
    if ignored:
        vocabulary.warnings.append(f"{ignored} added tokens have ids beyond the vocabulary of {n_tokens}: left out")
    return vocabulary


def _added_tokens_json(files: TokenizerFiles) -> Iterator[tuple[str, int]]:
    for text, index in (files.json("added_tokens.json") or {}).items():
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise BadInput(f"{files.folder / 'added_tokens.json'}: {text!r} has the id {index!r}")
        yield text, index


def read_pieces(data: bytes, path: Path) -> tuple[list[str], array[float], array[int]]:
    """Texts, scores and types of all pieces of the SentencePiece model ``data``, which messages call ``path``.

    Raises
    ------
    BadInput : the file is not such a model
    """
    if data.startswith(b"version https://git-lfs"):
        raise BadInput(f"{path} is a git-lfs pointer, not the file itself", "Run: git lfs pull")
    texts: list[str] = []
    scores, types = array("f"), array("i")
    try:
        for field, start, stop in _fields(data, 0, len(data)):
            if field != 1:
                continue
            text, score, kind = "", 0.0, TokenType.NORMAL
            for inner, a, b in _fields(data, start, stop):
                if inner == 1:
                    text = data[a:b].decode("utf-8")
                elif inner == 2:
                    (score,) = struct.unpack("<f", data[a:b])
                elif inner == 3:
                    kind = _PIECE_TYPES.get(data[a], TokenType.NORMAL)
            texts.append(text)
            scores.append(score)
            types.append(kind)
    except (IndexError, ValueError, struct.error):
        raise BadInput(f"{path} is damaged after token {len(texts)}: not a SentencePiece model") from None
    if not texts:
        raise BadInput(f"{path} holds no tokens: not a SentencePiece model")
    return texts, scores, types


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """``(field number, start, stop)`` of each field of the message ``data[at:end]``.

    Raises
    ------
    ValueError, IndexError : the bytes are not a protobuf message
    """
    while at < end:
        tag = data[at]
        at += 1
        if tag & 0x80:
            tag, at = _varint(data, at - 1)
        wire = tag & 7
        if wire == 2:
            size = data[at]
            at += 1
            if size & 0x80:
                size, at = _varint(data, at - 1)
        elif wire == 5:
            size = 4
        elif wire == 1:
            size = 8
        elif wire == 0:
            size = _varint(data, at)[1] - at
        else:
            raise ValueError(f"wire type {wire}")
        stop = at + size
        if stop > end:
            raise ValueError("field runs past its message")
        yield tag >> 3, at, stop
        at = stop


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The little-endian base-128 number at ``at``, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")
