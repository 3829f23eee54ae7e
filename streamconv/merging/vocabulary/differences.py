"""Whether models that are merged row by row mean the same tokens by the same rows."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import StreamconvError
from ...sources.checkpoint import Checkpoint
from .tokens import SENTENCEPIECE, TOKENIZER, VOCABULARY, Tokens, read_tokens


def differences(models: Mapping[str, Checkpoint]) -> list[str]:
    """Warnings about models whose tokens have other ids than those of the first one.

    Parameters
    ----------
    models : reference -> model; those without a tokenizer, or with one that cannot be read, are passed over
    """
    named = {name: model for name, model in models.items() if _spelling(model) is not None}
    if len({_spelling(model) for model in named.values()}) < 2:
        return []
    read = {name: tokens for name, model in named.items() if (tokens := _tokens(name, model)) is not None}
    found: list[str] = []
    first = next(iter(read), "")
    texts = {index: text for text, index in read[first].ids.items()} if read else {}
    for name, tokens in read.items():
        moved = [text for text, index in tokens.ids.items() if texts.get(index, text) != text]
        if moved:
            found.append(
                f"{len(moved)} rows of {name} belong to other tokens than in {first} (such as {moved[0]!r}): "
                "they are merged row by row; tokenizer: {source: base} matches them by token"
            )
    return found


def _spelling(model: Checkpoint) -> bytes | None:
    """The file that holds the vocabulary, as it is."""
    if model.metadata is not None:
        return None
    return next((data for name in (TOKENIZER, SENTENCEPIECE, VOCABULARY) if (data := model.side_bytes(name))), None)


def _tokens(name: str, model: Checkpoint) -> Tokens | None:
    try:
        return read_tokens(model, name)
    except StreamconvError:
        return None
