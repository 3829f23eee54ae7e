"""SentencePiece vocabularies in a tokenizer.json: BPE whose pieces spell a blank as U+2581 and fall back to bytes.

Runtimes tokenize such a vocabulary ("llama") by the scores of pieces: of all neighbours that make a piece together they join those
of the highest score first. tokenizer.json has merges instead, the first before all others. A piece therefore gets its score from
the rank of the first merge that makes it, which is the order of the scores that the merges were once made from.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import BadInput
from ...sources.sentencepiece import BYTE_PIECE
from .added import ADDED_SCORE, completed
from .files import TokenizerFiles
from .json_model import merge_pairs, model_ids, of_no_kind, read_model
from .vocabulary import UNUSED_SCORE, TokenType, Vocabulary, added_token, check_room, token_count

#: what a tokenizer class calls special although no file says so
_CLASS_SPECIALS = {"LlamaTokenizer": ("<unk>", "<s>", "</s>"), "CodeLlamaTokenizer": ("<unk>", "<s>", "</s>")}
_N_BYTES = 256


def read_json_pieces(
    files: TokenizerFiles, config: Mapping[str, Any], vocab_size: int | None, named_only: bool = False
) -> Vocabulary:
    """The vocabulary of a tokenizer.json with byte fallback, as its tokenizer.model would give it.

    Parameters
    ----------
    config : the normalised model configuration
    vocab_size : number of tokens; by default the configuration's, else as many as the tokenizer has
    named_only : tokens are special where tokenizer_config.json names them, whatever the list of added ones says

    Raises
    ------
    BadInput : the file is damaged or has more tokens than the model

    Notes
    -----
    Where the model has more rows than the tokenizer has tokens, unused ones are added; the reference leaves them out
    and its file cannot be loaded.
    """
    path, model = read_model(files, "BPE")
    if model.get("byte_fallback") is not True:
        raise of_no_kind(path)
    ids = model_ids(model, path)
    added, warnings = completed(files, ids, token_count(config, vocab_size, 0, "vocab_size"))
    n_needed = max((*ids.values(), *added)) + 1
    n_tokens = token_count(config, vocab_size, n_needed, "vocab_size")
    check_room(path, n_needed, n_tokens)
    ranks = _Ranks(model.pop("merges", None), ids, path)
    vocabulary = Vocabulary.empty("llama", "default", str(path), n_tokens, UNUSED_SCORE)
    vocabulary.warnings += warnings
    special = {token.text for token in added.values() if token.special and not named_only}
    special.update(files.special_texts() if named_only else ())
    special.update(_CLASS_SPECIALS.get(files.tokenizer_class, ()))
    scores = ranks.scores()
    n_bytes = 0
    for text, index in ids.items():
        if vocabulary.texts[index] is not None:
            raise BadInput(f"{path}: id {index} is both {vocabulary.texts[index]!r} and {text!r}")
        stored, kind, score = text, TokenType.NORMAL, scores.get(index, -float(len(scores)))
        if BYTE_PIECE.fullmatch(text):
            kind, score, n_bytes = TokenType.BYTE, 0.0, n_bytes + 1
        elif text in special:
            kind, score = TokenType.CONTROL, scores.get(index, 0.0)
        elif text == model.get("unk_token"):
            kind, score = TokenType.UNKNOWN, 0.0
        elif index in added and not named_only:
            (stored, kind), score = added_token(text, special=False), scores.get(index, ADDED_SCORE)
        vocabulary.put(index, stored, kind, score)
    for index, token in added.items():
        known = vocabulary.texts[index]
        if known is None:
            kinds = TokenType.USER_DEFINED, TokenType.CONTROL
            put = (token.text, kinds[token.text in special]) if named_only else added_token(token.text, token.special)
            vocabulary.put(index, *put, ADDED_SCORE)
        elif token.text not in ids:
            raise BadInput(f"{path}: id {index} is both {known!r} and {token.text!r}")
    vocabulary.adds_prefix = adds_prefix(files.tokenizer_head)
    vocabulary.warnings += _losses(vocabulary, ranks.inexact(added), n_needed, n_bytes)
    return vocabulary


def _losses(vocabulary: Vocabulary, example: str, n_needed: int, n_bytes: int) -> Iterator[str]:
    """What scores and token types cannot say of the file."""
    path, n_tokens = vocabulary.source, len(vocabulary)
    if n_needed < n_tokens:
        yield f"{path} has {n_needed} tokens, the model {n_tokens}: {n_tokens - n_needed} unused ones are added"
    if n_bytes < _N_BYTES:
        yield f"{path} has tokens for {n_bytes} of {_N_BYTES} bytes: runtimes stop at characters that no piece holds"
    if example:
        yield (
            f"{path}: the order of its merges cannot be expressed by scores of pieces ({example!r} for one): runtimes may"
            " tokenize some texts differently"
        )


def adds_prefix(head: Mapping[str, Any]) -> bool:
    """Whether the normalizer or the pre-tokenizer of a tokenizer.json puts a blank before a text."""

    def steps(entry: Any, inner: str) -> Iterator[Mapping[str, Any]]:
        if isinstance(entry, Mapping):
            yield entry
            listed = entry.get(inner)
            for step in listed if isinstance(listed, list) else ():
                yield from steps(step, inner)

    if any(step.get("type") == "Prepend" for step in steps(head.get("normalizer"), "normalizers")):
        return True
    for step in steps(head.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "Metaspace":
            scheme = step.get("prepend_scheme")
            return scheme != "never" if scheme is not None else step.get("add_prefix_space") is not False
    return False


class _Ranks:
    """For every piece that a merge makes, the ranks of the first and the last such merge, and their number.

    Parameters
    ----------
    merges : tokenizer.json's list, of pairs or of texts with a blank between
    ids : piece -> id
    path : for messages
    """

    def __init__(self, merges: Any, ids: Mapping[str, int], path: Path) -> None:
        self._ids = ids
        size = max(ids.values()) + 1
        self._first, self._last, self._count = (array("i", [start]) * size for start in (-1, -1, 0))
        for rank, (left, right) in enumerate(merge_pairs(merges or [], path)):
            made = ids.get(left + right)
            if made is None:
                raise BadInput(f"{path}: merge {rank} makes {left + right!r}, which is not a token")
            if self._first[made] < 0:
                self._first[made] = rank
            self._last[made] = rank
            self._count[made] += 1

    def scores(self) -> dict[int, float]:
        """Id -> 0, -1, -2, … in the order of the first merges."""
        made = (index for index, rank in enumerate(self._first) if rank >= 0)
        return {index: -float(n) for n, index in enumerate(sorted(made, key=self._first.__getitem__))}

    def inexact(self, added: Container[int]) -> str:
        """A piece by which scores and merges differ, those with the ids ``added`` aside; empty where they are the same.

        Scores let a piece be made of any two pieces, all of them with one priority; merges only of those that are listed.
        """
        end = -1
        made = sorted((n, text, i) for text, i in self._ids.items() if (n := self._first[i]) >= 0)
        for first, text, index in made:
            if first < end:
                return text
            end = self._last[index]
        for text, index in self._ids.items():
            ways = sum(text[:cut] in self._ids and text[cut:] in self._ids for cut in range(1, len(text)))
            if ways != self._count[index] and index not in added:
                return text
        return ""
