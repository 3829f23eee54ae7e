"""The side files of a model with an adapter: the adapter's tokenizer when it has one, else the base's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..sources.checkpoint import Checkpoint

#: files that hold a vocabulary, any of which makes a tokenizer together with tokenizer_config.json
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
#: what else belongs to a tokenizer
_BESIDE = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "sentencepiece.bpe.model",
    "chat_template.jinja", "chat_template.json", "tokenizer.model.v3",
)  # fmt: skip
_CONFIG = "tokenizer_config.json"


def is_tokenizer_file(name: str) -> bool:
    """Whether the side file ``name`` is part of a tokenizer."""
    return name in _VOCABULARIES or name in _BESIDE or name.startswith("additional_chat_templates/")


def is_template_file(name: str) -> bool:
    """Whether the side file ``name`` holds chat templates only."""
    return name in ("chat_template.jinja", "chat_template.json") or name.startswith("additional_chat_templates/")


def merged_side(base: Checkpoint, adapter: Checkpoint, warnings: list[str]) -> dict[str, Path | bytes]:
    """The side files by name.

    All files of the base, but for the tokenizer when the adapter ships one: tokenizer_config.json and a vocabulary. What is
    left of the base's then is what still fits: other spellings of the same vocabulary, and a chat template if the adapter
    has none.
    """
    side = {name: found for name in base.side_names() if (found := base.side_file(name)) is not None}
    own = {n: f for n in adapter.side_names() if is_tokenizer_file(n) and (f := adapter.side_file(n)) is not None}
    if not own:
        return side
    if _CONFIG not in own or not any(name in own for name in _VOCABULARIES):
        warnings.append(
            f"{adapter.path} has only a part of a tokenizer ({', '.join(sorted(own))}): that of {base.path} is used"
        )
        return side
    same_vocabulary = _same_model(base, adapter)
    has_template = any(map(is_template_file, own)) or (adapter.json(_CONFIG) or {}).get("chat_template")
    for name in [name for name in side if is_tokenizer_file(name) and name not in own]:
        keep = (
            not has_template if is_template_file(name) else same_vocabulary and name in (*_VOCABULARIES, "merges.txt")
        )
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
