"""The ``model`` of a tokenizer.json: its vocabulary, its merges, and of which kind it is.

What kind it is follows from what the file says, not from its name: byte-level BPE names the step ``ByteLevel``, a SentencePiece
vocabulary falls back to bytes of its own (``byte_fallback``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import BadInput
from .files import TokenizerFiles


def names_byte_level(files: TokenizerFiles) -> bool:
    """Whether tokenizer.json names the step that spells bytes as characters; needs no look at the vocabulary."""
    return _names(files, "ByteLevel")


def holds_pieces(files: TokenizerFiles) -> bool:
    """Whether tokenizer.json is BPE over SentencePiece's pieces, with bytes to fall back to."""
    if not files.has("tokenizer.json") or names_byte_level(files):
        return False
    if _names(files, "ByteFallback"):
        return True
    model = (files.json("tokenizer.json") or {}).get("model")
    return isinstance(model, dict) and _kind(model) == "BPE" and model.get("byte_fallback") is True


def _names(files: TokenizerFiles, step: str) -> bool:
    head = files.tokenizer_head
    return f'"{step}"' in json.dumps([head.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")])


def of_no_kind(path: Path) -> BadInput:
    """The error of a vocabulary that is neither byte-level nor falls back to bytes."""
    return BadInput(
        f"{path}: its vocabulary is not byte-level, as spaces are spelled U+2581, and has no byte_fallback",
        "No runtime reads such a vocabulary. Put the tokenizer.model of the same model beside it.",
    )


def read_model(files: TokenizerFiles, kind: str, *others: str) -> tuple[Path, dict[str, Any]]:
    """The file with the vocabulary, and its ``model`` object, which must be of type ``kind`` or one of ``others``."""
    path = files.called("tokenizer.json")
    whole = files.json("tokenizer.json")
    if whole is None:
        path = files.called("vocab.json")
        return path, {"type": kind, "vocab": files.json("vocab.json")}
    model = whole.get("model")
    if not isinstance(model, dict):
        raise BadInput(f"{path} has no model")
    found = _kind(model)
    if found not in (kind, *others):
        raise BadInput(f"{path} holds a {found} model; this family needs {kind}")
    return path, model


def _kind(model: Mapping[str, Any]) -> Any:
    found = model.get("type")
    return found if found is not None else "BPE" if "merges" in model else None


def model_ids(model: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Token text -> id of a model, checked.

    Raises
    ------
    BadInput : it is not a mapping to non-negative integers
    """
    ids = model.get("vocab")
    if _kind(model) == "Unigram":
        ids = {text: index for index, (text, _) in enumerate(pieces_of(model, path))}
    if not isinstance(ids, dict) or not ids:
        raise BadInput(f"{path} has no vocabulary")
    for text, index in ids.items():
        if type(index) is not int or index < 0:
            raise BadInput(f"{path}: token {text!r} has the id {index!r}")
    return ids


def pieces_of(model: Mapping[str, Any], path: Path) -> list[tuple[str, float]]:
    """Pieces and scores of a Unigram model in the order of their ids.

    Raises
    ------
    BadInput : its vocabulary is not a list of such
    """
    pieces = model.get("vocab")
    if not isinstance(pieces, list) or not all(map(_is_piece, pieces)):
        raise BadInput(f"{path}: its vocab is not a list of pieces and their scores")
    return pieces


def _is_piece(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], (int, float))
        and not isinstance(entry[1], bool)
    )


def merge_pairs(merges: Any, path: Path) -> Iterator[tuple[str, str]]:
    """The parts of each merge in order of rank; they are written as pairs, or as texts with a blank between.

    Raises
    ------
    BadInput : it is not a list of such
    """
    if not isinstance(merges, list):
        raise BadInput(f"{path}: merges is not a list")
    for rank, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise BadInput(f"{path}: merge {rank} is not a pair: {merge!r}")
        yield pair[0], pair[1]
