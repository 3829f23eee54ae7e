"""Llama's SentencePiece vocabulary where only ``tokenizer.json`` is left: BPE with byte fallback.

The loaders treat it as SentencePiece ("llama"); the file has no scores, so all are equal, as in the reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...errors import BadInput
from .bpe import model_ids, read_model
from .files import TokenizerFiles
from .vocabulary import TokenType, Vocabulary, check_room, token_count

#: the converter's score of every token, there being none in tokenizer.json
_SCORE = -1000.0
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
#: what a tokenizer class calls special although no file says so
_CLASS_SPECIALS = {"Llama": ("<unk>", "<s>", "</s>"), "CodeLlama": ("<unk>", "<s>", "</s>")}


def is_hf_llama(files: TokenizerFiles) -> bool:
    """Whether tokenizer.json is a byte-fallback BPE, by its decoder: a sequence of steps, not byte-level."""
    decoder = files.tokenizer_head.get("decoder")
    if not isinstance(decoder, dict) or decoder.get("type") != "Sequence":
        return False
    model = (files.json("tokenizer.json") or {}).get("model")
    return isinstance(model, dict) and model.get("type") == "BPE" and model.get("byte_fallback") is True


def read_hf_llama(files: TokenizerFiles, config: Mapping[str, Any], vocab_size: int | None) -> Vocabulary:
    """The vocabulary, the base tokens first and the added ones above them.

    Parameters
    ----------
    config : the normalised model configuration
    vocab_size : number of tokens; by default the configuration's, else as many as the tokenizer has

    Raises
    ------
    BadInput : the file is damaged or has more tokens than the model

    Notes
    -----
    Where the model has more rows than the tokenizer has tokens, unused ones fill up; the reference leaves them out
    and its file cannot be loaded.
    """
    path, model = read_model(files, "BPE")
    ids = model_ids(model, path)
    del model
    special = set(files.special_texts()) | {token.text for token in files.added_tokens if token.special}
    name = str(files.tokenizer_config.get("tokenizer_class", "")).removesuffix("Fast").removesuffix("Tokenizer")
    special.update(_CLASS_SPECIALS.get(name, ()))
    added = {token.text: token.id for token in files.added_tokens if token.text not in ids}
    n_base = max(ids.values()) + 1
    n_needed = max(n_base, max(added.values(), default=-1) + 1)
    n_tokens = token_count(config, vocab_size, n_needed, "vocab_size")
    check_room(path, n_needed, n_tokens)
    vocabulary = Vocabulary.empty("llama", "default", str(path), n_tokens, _SCORE)
    for text, index in (*ids.items(), *added.items()):
        if vocabulary.texts[index] is not None:
            raise BadInput(f"{path}: id {index} is both {vocabulary.texts[index]!r} and {text!r}")
        kind = TokenType.NORMAL if index < n_base and text not in added else TokenType.USER_DEFINED
        if text in special:
            kind = TokenType.CONTROL
        if text not in added and _BYTE.fullmatch(text):
            kind = TokenType.BYTE
        vocabulary.put(index, text, kind, _SCORE)
    if n_needed < n_tokens:
        vocabulary.warnings.append(
            f"{path} has {n_needed} tokens, the model {n_tokens}: {n_tokens - n_needed} unused ones fill up"
        )
    return vocabulary
