"""The side files of a model with an adapter: the adapter's tokenizer when it has one, else the base's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..file_names import OF_TOKENIZERS, TEMPLATES, VOCABULARIES, fits
from ..sources.checkpoint import Checkpoint

#: those of Mistral have a copy of tokenizer.model beside it
_TOKENIZER = (*OF_TOKENIZERS, "tokenizer.model.v3")
_CONFIG = "tokenizer_config.json"


def merged_side(base: Checkpoint, adapter: Checkpoint, warnings: list[str]) -> dict[str, Path | bytes]:
    """The side files by name.

    All files of the base, but for the tokenizer when the adapter ships one: tokenizer_config.json and a vocabulary. What is
    left of the base's then is what still fits: other spellings of the same vocabulary, and a chat template if the adapter
    has none.
    """
    side = {name: found for name in base.side_names() if (found := base.side_file(name)) is not None}
    own = {n: f for n in adapter.side_names() if fits(n, _TOKENIZER) and (f := adapter.side_file(n)) is not None}
    if not own:
        return side
    if _CONFIG not in own or not any(fits(name, VOCABULARIES) for name in own):
        warnings.append(
            f"{adapter.path} has only a part of a tokenizer ({', '.join(sorted(own))}): that of {base.path} is used"
        )
        return side
    same_vocabulary = _same_model(base, adapter)
    has_template = any(fits(name, TEMPLATES) for name in own) or (adapter.json(_CONFIG) or {}).get("chat_template")
    for name in [name for name in side if fits(name, _TOKENIZER) and name not in own]:
        is_spelling = fits(name, (*VOCABULARIES, "merges.txt"))
        keep = not has_template if fits(name, TEMPLATES) else same_vocabulary and is_spelling
        if not keep:
            del side[name]
    return {**side, **own}


def _same_model(base: Checkpoint, adapter: Checkpoint) -> bool:
    """Whether both have the same vocabulary, tokens that were added later aside."""
    if _same_bytes(base, adapter, "tokenizer.json"):
        return True
    ours, theirs = _model(base.json("tokenizer.json")), _model(adapter.json("tokenizer.json"))
    return ours is not None and ours == theirs


def _same_bytes(base: Checkpoint, adapter: Checkpoint, name: str) -> bool:
    found = adapter.side_bytes(name)
    return found is not None and found == base.side_bytes(name)


def _model(tokenizer: Mapping[str, Any] | None) -> Any:
    return (tokenizer or {}).get("model")


def largest_token(side: Mapping[str, Path | bytes], checkpoint: Checkpoint) -> int | None:
    """The largest token id in tokenizer.json among ``side``; None without such a file.

    Parameters
    ----------
    checkpoint : one that ``side`` can be put into, to read the file
    """
    if "tokenizer.json" not in side:
        return None
    tokenizer = Checkpoint(checkpoint.path, {}, {}, (), side=side).json("tokenizer.json") or {}
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    ids: list[int] = []
    if isinstance(vocabulary, Mapping):
        ids += [index for index in vocabulary.values() if type(index) is int]
    elif isinstance(vocabulary, list):
        ids.append(len(vocabulary) - 1)
    added = tokenizer.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, Mapping) and type(token.get("id")) is int:
            ids.append(token["id"])
    return max(ids, default=None)
