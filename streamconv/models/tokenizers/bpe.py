"""Byte-level BPE and WordPiece: ``tokenizer.json``, or the older pair ``vocab.json`` and ``merges.txt``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import BadInput
from .files import AddedToken, TokenizerFiles, token_text
from .library import Question
from .packed import PackedStrings
from .pretokenizer import Detection
from .vocabulary import SPACE, TokenType, Vocabulary, added_token, check_room, token_count

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
    BadInput : a file is damaged, an id is beyond the vocabulary, or the pre-tokenizer is unknown
    """
    vocabulary, merges = _read(files, config, vocab_size, pre, "BPE", "gpt2")
    vocabulary.checks_ids = False
    vocabulary.merges = merges if merges is not None and len(merges) else _merges_txt(files)
    if vocabulary.merges is None:
        vocabulary.warnings.append(f"{vocabulary.source} has no merges: loaders will refuse the vocabulary")
    return vocabulary


def read_wordpiece(
    files: TokenizerFiles, config: Mapping[str, Any], vocab_size: int | None, pre: str | None
) -> Vocabulary:
    """The vocabulary of a WordPiece tokenizer (BERT): word starts get U+2581, ``##`` goes. Errors as ``read_bpe``."""
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
    path, model = read_model(files, kind)
    ids = model_ids(model, path)
    merges = _merges(model.pop("merges", None), path)
    del model
    limit = token_count(config, vocab_size, 0, "vocab_size")
    added, warnings = _added_tokens(files, ids, limit)
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


def read_model(files: TokenizerFiles, kind: str) -> tuple[Path, dict[str, Any]]:
    """The file with the vocabulary, and its ``model`` object, which must be of type ``kind``."""
    path = files.folder / "tokenizer.json"
    whole = files.json("tokenizer.json")
    if whole is None:
        path = files.folder / "vocab.json"
        return path, {"type": kind, "vocab": files.json("vocab.json")}
    model = whole.get("model")
    if not isinstance(model, dict):
        raise BadInput(f"{path} has no model")
    found = model.get("type", "BPE" if "merges" in model else None)
    if found != kind:
        raise BadInput(f"{path} holds a {found} model; this family needs {kind}")
    return path, model


def model_ids(model: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Token text -> id of a model, checked.

    Raises
    ------
    BadInput : it is not a mapping to non-negative integers
    """
    ids = model.get("vocab")
    if not isinstance(ids, dict) or not ids:
        raise BadInput(f"{path} has no vocabulary")
    for text, index in ids.items():
        if type(index) is not int or index < 0:
            raise BadInput(f"{path}: token {text!r} has the id {index!r}")
    return ids


def _added_tokens(files: TokenizerFiles, ids: Mapping[str, int], limit: int) -> tuple[dict[int, AddedToken], list[str]]:
    """Every added token by id, as transformers completes them when it loads a tokenizer, and warnings.

    tokenizer.json's come first, then texts only tokenizer_config.json's ``added_tokens_decoder`` knows, then special
    texts (``pad_token`` …) nobody has listed: those found in the vocabulary become special there, others take the
    next free id if the model has room for it (``limit``, 0 for no limit).
    """
    added: dict[int, AddedToken] = {}
    warnings: list[str] = []
    known: set[str] = set()
    taken = set(ids.values())
    for token in files.added_tokens:
        if token.text in known:
            continue
        known.add(token.text)
        index = ids.get(token.text, token.id)
        other = added.setdefault(index, token)
        if other is not token:
            where = files.folder / "tokenizer.json"
            raise BadInput(f"{where}: the added tokens {other.text!r} and {token.text!r} have the same id {index}")
    for token in files.declared_tokens:
        if token.text in known:
            continue
        known.add(token.text)
        index = ids.get(token.text, token.id)
        if index in added or (token.text not in ids and index in taken):
            warnings.append(f"tokenizer_config.json's token {token.text!r} is ignored: id {index} is another token")
        else:
            added[index] = token
    for text in files.special_texts():
        if text in known or not text:
            continue
        known.add(text)
        index = ids.get(text, max((*taken, *added)) + 1)
        if limit and index >= limit:
            warnings.append(f"the special token {text!r} is left out: the model has no row for it")
        else:
            added[index] = AddedToken(index, text, True, False)
    return added, warnings


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


def _merges(merges: Any, path: Path) -> PackedStrings | None:
    """Merges as "left right"; newer files hold pairs, whose blanks become the byte-level blank."""
    if merges is None:
        return None
    if not isinstance(merges, list):
        raise BadInput(f"{path}: merges is not a list")

    def lines() -> Iterator[str]:
        for rank, merge in enumerate(merges):
            if isinstance(merge, str):
                yield merge
            elif isinstance(merge, list) and len(merge) == 2 and all(isinstance(part, str) for part in merge):
                left, right = merge
                yield f"{left.replace(' ', _BYTE_SPACE)} {right.replace(' ', _BYTE_SPACE)}"
            else:
                raise BadInput(f"{path}: merge {rank} is not a pair: {merge!r}")

    return _packed(lines(), path)


def _merges_txt(files: TokenizerFiles) -> PackedStrings | None:
    text = files.text("merges.txt")
    if text is None:
        return None
    lines = text.splitlines()
    if lines and lines[0].startswith("#"):
        del lines[0]
    pairs = (line.split() for line in lines)
    packed = _packed((" ".join(pair) for pair in pairs if len(pair) == 2), files.folder / "merges.txt")
    return packed if len(packed) else None


def _packed(texts: Iterable[str], path: Path) -> PackedStrings:
    try:
        return PackedStrings(texts)
    except UnicodeEncodeError as e:
        raise BadInput(f"{path}: {e.object!r} is not valid Unicode") from None


def _special_id(files: TokenizerFiles, config: Mapping[str, Any], name: str) -> int | None:
    """The id of ``bos`` or ``eos``, wherever it is told."""
    text = token_text(files.tokenizer_config.get(f"{name}_token"))
    for token in files.added_tokens:
        if token.text == text:
            return token.id
    value = config.get(f"{name}_token_id")
    return value if isinstance(value, int) and not isinstance(value, bool) else None
