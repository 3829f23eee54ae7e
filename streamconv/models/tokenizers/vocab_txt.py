"""WordPiece vocabularies of old BERT checkpoints: ``vocab.txt``, a token a line, read as the tokenizer.json that it stands for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from ...metadata import Metadata
from ...sources.checkpoint import Checkpoint
from .files import TokenizerFiles

#: special tokens of BERT, in the order of their usual ids, and what tokenizer_config.json calls them
_SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
#: ids that loaders assume where a file does not state them
_ASSUMED = {"unknown": 100, "seperator": 102}
_NORMALIZING = ("lowercase", "strip_accents")


def with_tokenizer_json(checkpoint: Checkpoint) -> Checkpoint:
    """``checkpoint`` with a tokenizer.json made of its vocab.txt; as it is where it has one already, or no vocab.txt."""
    files = TokenizerFiles(checkpoint)
    if files.has("tokenizer.json") or files.has("vocab.json") or (text := files.text("vocab.txt")) is None:
        return checkpoint
    made = json.dumps(_tokenizer(text.splitlines(), files)).encode()
    side = {name: place for name in checkpoint.side_names() if (place := checkpoint.side_file(name)) is not None}
    return replace(checkpoint, side={**side, "tokenizer.json": made})


def _tokenizer(lines: list[str], files: TokenizerFiles) -> dict[str, Any]:
    """What transformers makes of a vocabulary of these lines."""
    ids = {token: index for index, token in enumerate(lines)}
    special = [files.special_text(name) or token for name, token in _SPECIAL.items()]
    chinese, lowercase = (files.flag(name) for name in ("tokenize_chinese_chars", "do_lower_case"))
    added = [
        {"id": ids[token], "content": token, "special": True, "normalized": False, "single_word": False, "lstrip": False,
         "rstrip": False}
        for token in special if token in ids
    ]  # fmt: skip
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": chinese is not False,
        "strip_accents": files.flag("strip_accents"),
        "lowercase": lowercase is not False,
    }
    model = {
        "type": "WordPiece",
        "unk_token": files.special_text("unk") or _SPECIAL["unk"],
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    }
    pre = {"type": "BertPreTokenizer"}
    head = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre,
        "post_processor": None,
    }
    return {**head, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}, "model": {**model, "vocab": ids}}


def without_what_is_not_stated(metadata: Metadata) -> list[str]:
    """Leave out what such a checkpoint does not state and the reference does not write; warnings where loaders assume otherwise."""
    wrong = []
    for name, assumed in _ASSUMED.items():
        found = metadata.values.pop(f"tokenizer.ggml.{name}_token_id", None)
        if found is not None and found.value != assumed:
            wrong.append(f"{name} {found.value}, not {assumed}")
    for name in _NORMALIZING:
        found = metadata.values.pop(f"tokenizer.ggml.normalizer.{name}", None)
        if found is not None and not found.value:
            wrong.append(f"{name} false, not true")
    if not wrong:
        return []
    return [f"vocab.txt alone: loaders assume otherwise ({'; '.join(wrong)}); a tokenizer.json beside it defines these"]
