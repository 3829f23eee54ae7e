"""The files of a tokenizer, with tokens added and taken out; those about which nothing changes stay as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...sources.checkpoint import Checkpoint
from .. import side_files
from .output import MergedVocabulary
from .tokens import ADDED, CONFIG, SENTENCEPIECE, TOKENIZER, VOCABULARY

Side = dict[str, "Path | bytes"]


def tokenizer_files(checkpoint: Checkpoint) -> Side:
    """All files of a model's tokenizer, by name."""
    found = {name: checkpoint.side_file(name) for name in side_files.tokenizer_names(checkpoint)}
    return {name: file for name, file in found.items() if file is not None}


def write_output(checkpoint: Checkpoint, output: MergedVocabulary) -> Side:
    """The files of the merged tokenizer.

    tokenizer.json takes all tokens. Where there are files of the older kind, tokens go to added_tokens.json and
    tokenizer_config.json, so that readers of tokenizer.model or vocab.json see them, too.

    Parameters
    ----------
    checkpoint : the model that gives the files
    """
    side = tokenizer_files(checkpoint)
    if not output.new and not output.dropped:
        return side
    fast = checkpoint.json(TOKENIZER)
    if fast is not None:
        side[TOKENIZER] = _text(_edited_tokenizer(fast, output))
    old = SENTENCEPIECE in side or VOCABULARY in side
    config = checkpoint.json(CONFIG) or {}
    edited = _edited_config(config, output, old)
    if edited != config or CONFIG not in side:
        side[CONFIG] = _text(edited)
    beside = checkpoint.json(ADDED)
    if beside is not None or (old and output.new):
        kept = {text: index for text, index in (beside or {}).items() if text in output.ids}
        kept |= {text: output.ids[text] for text in output.new}
        side[ADDED] = _text(dict(sorted(kept.items(), key=lambda pair: pair[1])))
    return side


def _text(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _edited_tokenizer(fast: dict[str, Any], output: MergedVocabulary) -> dict[str, Any]:
    """tokenizer.json with the new tokens, without the dropped ones."""
    kept = {e["content"]: e for e in fast.get("added_tokens") or [] if e["content"] in output.ids}
    kept |= {text: {"id": output.ids[text], "content": text, **output.added[text]} for text in output.new}
    edited = {**fast, "added_tokens": sorted(kept.values(), key=lambda entry: int(entry["id"]))}
    if output.dropped and isinstance(fast["model"].get("vocab"), dict):
        edited["model"] = _without(fast["model"], set(output.dropped))
    return edited


def _without(model: Mapping[str, Any], dropped: set[str]) -> dict[str, Any]:
    """The model without some tokens, nor the merges they take part in; lists of pieces keep theirs, for ids are places."""
    edited = {**model, "vocab": {text: index for text, index in model["vocab"].items() if text not in dropped}}
    if isinstance(model.get("merges"), list):
        pairs = [(merge, merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in model["merges"]]
        edited["merges"] = [merge for merge, pair in pairs if not dropped & {*pair, "".join(pair)}]
    return edited


def _edited_config(config: Mapping[str, Any], output: MergedVocabulary, old: bool) -> dict[str, Any]:
    """tokenizer_config.json with the new tokens, without the dropped ones."""
    dropped = set(output.dropped)
    edited = {
        key: value for key, value in config.items() if not (key.endswith("_token") and _content(value) in dropped)
    }
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = edited.get(key)
        if isinstance(value, list):
            edited[key] = [entry for entry in value if _content(entry) not in dropped]
        elif isinstance(value, dict):
            edited[key] = {name: entry for name, entry in value.items() if _content(entry) not in dropped}
    declared = edited.get("added_tokens_decoder")
    if declared is not None or old:
        kept = {int(k): e for k, e in (declared or {}).items() if _content(e) not in dropped}
        kept |= {output.ids[text]: {"content": text, **output.added[text]} for text in output.new}
        edited["added_tokens_decoder"] = {str(index): kept[index] for index in sorted(kept)}
    return edited


def _content(entry: Any) -> Any:
    found = entry.get("content") if isinstance(entry, Mapping) else entry
    return found if isinstance(found, str) else None
