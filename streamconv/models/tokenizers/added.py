"""Tokens that were added to a vocabulary, by whichever of its files: what each file says, and which goes before which.

tokenizer_config.json's ``added_tokens_decoder``, tokenizer.json's ``added_tokens`` and added_tokens.json say what was added. Beside
a tokenizer.model (``overlaid``) a later file of added_tokens.json, tokenizer.json, tokenizer_config.json replaces what an earlier
one said of an id. Where tokenizer.json holds the vocabulary (``completed``) it is the other way round, as in transformers: its own
tokens are there first, and the other files only add texts that it lacks, at ids that are free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from ...errors import BadInput
from ...sources.naming import shown
from .files import AddedToken, TokenizerFiles
from .vocabulary import TokenType, Vocabulary, added_token

#: the converter's score of tokens that were added to pieces
ADDED_SCORE = -1000.0
#: types of pieces that stay what they are when tokenizer.json lists the same text
_SETTLED = (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.BYTE)


def completed(files: TokenizerFiles, ids: Mapping[str, int], limit: int) -> tuple[dict[int, AddedToken], list[str]]:
    """Every token added to the vocabulary ``ids`` of tokenizer.json by id, as transformers completes them, and warnings.

    tokenizer.json's come first, then texts that only ``added_tokens_decoder`` or added_tokens.json knows, then special texts
    (``pad_token`` …) no file lists: those found in the vocabulary become special there, others take the next free id if the
    model has room for it (``limit``, 0 for no limit).

    Raises
    ------
    BadInput : two tokens of tokenizer.json have one id
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
            where = files.called("tokenizer.json")
            raise BadInput(f"{where}: the added tokens {other.text!r} and {token.text!r} have the same id {index}")
    for name, token in _others(files):
        if token.text in known:
            continue
        known.add(token.text)
        index = ids.get(token.text, token.id)
        if index in added or (token.text not in ids and index in taken):
            warnings.append(f"{name}'s token {shown(token.text)} is ignored: id {index} is another token")
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


def _others(files: TokenizerFiles) -> Iterator[tuple[str, AddedToken]]:
    """Tokens of the files beside tokenizer.json, each with the name of its file."""
    for token in files.declared_tokens:
        yield "tokenizer_config.json", token
    special: Set[str] = frozenset(files.special_texts())
    for text, index in files.listed_tokens.items():
        yield "added_tokens.json", AddedToken(index, text, text in special, text not in special)


def overlay(files: TokenizerFiles, vocabulary: Vocabulary) -> None:
    """Put what the files say of added tokens over the pieces of a tokenizer.model, the last of them last.

    Of tokenizer.json only counts what the pieces do not say already: another text, or another type than that of a piece of text.
    """
    told: dict[int, tuple[str, str]] = {}
    beyond: set[int] = set()
    at = {text: index for index, text in enumerate(vocabulary.texts)} if files.added_tokens else {}

    def put(name: str, index: int, text: str, stored: str, kind: TokenType) -> None:
        if index >= len(vocabulary):
            beyond.add(index)
            return
        before, place = told.get(index, (text, name))
        if before != text:
            vocabulary.warnings.append(
                f"token {index} is {shown(before)} in {place} and {shown(text)} in {name}: the latter is used"
            )
        told[index] = text, name
        vocabulary.put(index, stored, kind, ADDED_SCORE)

    for text, index in files.listed_tokens.items():
        put("added_tokens.json", index, text, text, TokenType.USER_DEFINED)
    for token in files.added_tokens:
        here = at.get(token.text, token.id)
        if here != token.id:
            ids = f"its id is {token.id} there, and {here} in {vocabulary.source}"
            vocabulary.warnings.append(f"tokenizer.json's token {shown(token.text)} is ignored: {ids}")
        elif not (here < len(vocabulary) and token.text in at and vocabulary.types[here] in _SETTLED):
            put("tokenizer.json", token.id, token.text, *added_token(token.text, token.special))
    for token in files.declared_tokens:
        put("tokenizer_config.json", token.id, token.text, *added_token(token.text, token.special))
    if beyond:
        vocabulary.warnings.append(
            f"{len(beyond)} added tokens have ids beyond the vocabulary of {len(vocabulary)}: left out"
        )
