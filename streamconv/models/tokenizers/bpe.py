"""Byte-level BPE and WordPiece: ``tokenizer.json``, or the older pair ``vocab.json`` and ``merges.txt``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...errors import BadInput
from ...sources.sentencepiece import SPACE, is_spelling
from .added import completed
from .files import TokenizerFiles
from .json_model import merge_pairs, model_ids, of_no_kind, read_model
from .library import Question
from .packed import PackedStrings
from .pretokenizer import Detection
from .vocabulary import TokenType, Vocabulary, added_token, check_room, token_count

#: a blank in the byte-level alphabet
_BYTE_SPACE = "Ġ"


def read_bpe(files: TokenizerFiles, config: Mapping[str, Any], vocab_size: int | None, pre: str | None) -> Vocabulary:
    """The vocabulary of a byte-level BPE tokenizer.

    Parameters
    ----------
    config : the normalised model configuration
    vocab_size : number of tokens; by default the configuration's, else as many as the tokenizer has
    pre : name of the pre-tokenizer; detected when None

    Raises
    ------
    BadInput : a file is damaged, the vocabulary is not byte-level, an id is beyond it, or the pre-tokenizer is unknown
    """
    vocabulary, merges = _read(files, config, vocab_size, pre, "BPE", "gpt2")
    vocabulary.checks_ids = False
    vocabulary.merges = merges if merges is not None and len(merges) else _merges_txt(files)
    if vocabulary.merges is None:
        vocabulary.warnings.append(f"{vocabulary.source} has no merges: loaders will refuse the vocabulary")
    return vocabulary


def read_words(
    files: TokenizerFiles, config: Mapping[str, Any], vocab_size: int | None, _pre: str | None
) -> Vocabulary:
    """The vocabulary of a BPE whose words are parted by blanks alone, not byte-level. Errors as ``read_bpe``."""
    vocabulary, merges = _parse(files, config, vocab_size, "whitespace", "BPE", "whitespace")
    vocabulary.merges = merges
    return vocabulary


def read_wordpiece(
    files: TokenizerFiles, config: Mapping[str, Any], vocab_size: int | None, pre: str | None
) -> Vocabulary:
    """The vocabulary of a WordPiece tokenizer (BERT): word starts get U+2581, ``##`` goes. Errors as ``read_bpe``.

    So do the pieces of a Unigram model (CamemBERT), which have a U+2581 of their own: two, as in the reference.
    """
    vocabulary, _ = _read(files, config, vocab_size, pre, "WordPiece", "bert")
    for index, text in enumerate(vocabulary.texts):
        if vocabulary.types[index] != TokenType.CONTROL:
            text = text if text is not None else f"[PAD{index}]"
            vocabulary.texts[index] = text[2:] if text.startswith("##") else SPACE + text
    return vocabulary


def _read(
    files: TokenizerFiles,
    config: Mapping[str, Any],
    vocab_size: int | None,
    pre: str | None,
    kind: str,
    model_name: str,
) -> tuple[Vocabulary, PackedStrings | None]:
    """Vocabulary and merges, while a child process works out the pre-tokenizer."""
    if pre is not None:
        return _parse(files, config, vocab_size, pre, kind, model_name)
    with Detection(files) as detection:
        vocabulary, merges = _parse(files, config, vocab_size, "", kind, model_name)
        bos, eos = (_special_id(files, config, name) for name in ("bos", "eos"))
        vocabulary.pre = detection.name(files.tokenizer_head.get("pre_tokenizer"), bos, eos)
        return vocabulary, merges


def _parse(
    files: TokenizerFiles,
    config: Mapping[str, Any],
    vocab_size: int | None,
    pre: str,
    kind: str,
    model_name: str,
) -> tuple[Vocabulary, PackedStrings | None]:
    path, model = read_model(files, kind, *(["Unigram"] if kind == "WordPiece" else ()))
    ids = model_ids(model, path)
    merges = packed_merges(model.pop("merges", None), path)
    del model
    limit = token_count(config, vocab_size, 0, "vocab_size")
    added, warnings = completed(files, ids, limit)
    if kind == "BPE" and is_spelling(text for text, index in ids.items() if index not in added):
        raise of_no_kind(path)
    n_needed = max((*ids.values(), *added)) + 1
    n_tokens = limit or n_needed
    check_room(path, n_needed, n_tokens)
    vocabulary = Vocabulary.empty(model_name, pre, str(path), n_tokens)
    vocabulary.warnings += warnings
    for text, index in ids.items():
        if vocabulary.texts[index] is not None:
            raise BadInput(f"{path}: id {index} is both {vocabulary.texts[index]!r} and {text!r}")
        vocabulary.put(index, text, TokenType.NORMAL)
    stored = (token.text for token in added.values() if not token.normalized)
    plain = decoded(files.tokenizer_head.get("decoder"), stored, path)
    for index, token in added.items():
        known = vocabulary.texts[index]
        if known is not None and known != token.text:
            raise BadInput(f"{path}: id {index} is both {known!r} and {token.text!r}")
        text = token.text if token.normalized else plain[token.text]
        vocabulary.put(index, *added_token(text, token.special))
    return vocabulary, merges


def decoded(entry: Any, texts: Iterable[str], path: Path) -> dict[str, str]:
    """Stored texts of tokens -> the texts they stand for, by tokenizer.json's ``decoder``.

    Loaders match added tokens against plain text, so those that are not normalised are stored decoded. Byte-level
    decoding of printable ASCII, which nearly all of them are, changes nothing and needs no library.

    Raises
    ------
    BadInput : the library does not take the decoder
    """
    plain = {text: text for text in texts}
    is_byte_level = isinstance(entry, Mapping) and entry.get("type") == "ByteLevel"
    left = [t for t in plain if not (is_byte_level and all("!" <= c <= "~" for c in t))] if entry is not None else []
    if left:
        request = json.dumps({"decoder": entry, "texts": left}).encode()
        with Question(path, {}, request, "Its decoder is what makes plain text of added tokens.") as question:
            plain |= zip(left, question.answer()["texts"], strict=True)
    return plain


def packed_merges(merges: Any, path: Path) -> PackedStrings | None:
    """Merges as "left right"; newer files hold pairs, whose blanks become the byte-level blank."""
    if merges is None:
        return None
    blank = _BYTE_SPACE
    return packed((f"{a.replace(' ', blank)} {b.replace(' ', blank)}" for a, b in merge_pairs(merges, path)), path)


def _merges_txt(files: TokenizerFiles) -> PackedStrings | None:
    text = files.text("merges.txt")
    if text is None:
        return None
    lines = text.splitlines()
    if lines and lines[0].startswith("#"):
        del lines[0]
    pairs = (line.split() for line in lines)
    merges = packed((" ".join(pair) for pair in pairs if len(pair) == 2), files.called("merges.txt"))
    return merges if len(merges) else None


def packed(texts: Iterable[str], path: Path) -> PackedStrings:
    """``texts`` as a file holds them (BadInput, naming ``path``: one is not valid Unicode)."""
    try:
        return PackedStrings(texts)
    except UnicodeEncodeError as e:
        raise BadInput(f"{path}: {e.object!r} is not valid Unicode") from None


def _special_id(files: TokenizerFiles, config: Mapping[str, Any], name: str) -> int | None:
    """The id of ``bos`` or ``eos``, wherever it is told."""
    text = files.special_text(name)
    for token in files.added_tokens:
        if token.text == text:
            return token.id
    value = config.get(f"{name}_token_id")
    return value if isinstance(value, int) and not isinstance(value, bool) else None
