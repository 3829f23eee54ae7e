"""What models are published without, packed in ``models/data`` by ``tests/models/make_vocabularies.py``.

* ``gpt_neox.xz``: byte-level BPE of GPT-NeoX-20B (EleutherAI, Apache License 2.0), which Mamba uses: a line of the characters that
  stand for bytes, then its merges.
* ``llama_2.xz``: pieces of Llama 2 (Meta, Llama 2 Community License), which OpenELM uses: those behind the bytes, a line each.
* ``templates.xz``: name -> chat template of models that have none, or one that runtimes cannot parse (Mistral's v13: Unsloth,
  Apache License 2.0).

All are as llama.cpp (MIT License) has them: in ``models/ggml-vocab-*.gguf``, whose order, types and scores follow from these lines,
and in ``models/templates``.
"""

from __future__ import annotations

import json
import lzma
from array import array
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import InputMissing
from ...metadata import Metadata
from ...sources.sentencepiece import SPACE
from .files import TokenizerFiles
from .packed import PackedStrings
from .special import id_key
from .vocabulary import TokenType, Vocabulary, token_count

_DATA = Path(__file__).parents[1] / "data"
#: files that hold a vocabulary which is not the one that models without a file have
_FOREIGN = "tokenizer.model*", "*tiktoken*", "tekken.json", "vocab.*", "spiece.model"
#: runs of blanks of 24 to 2, which are added behind the merges, and rows up to a multiple of 128 that GPT-NeoX fills up
_BLANKS, _ROWS = range(24, 1, -1), 50432
#: score of pieces that are blanks alone, which no text is to be made of
_NEVER = -1e9


def read_gpt_neox(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, _pre: str | None) -> Vocabulary:
    """GPT-NeoX's vocabulary, the first tokens of it where the model has fewer; its merges are all there."""
    characters, *merges = _lines("gpt_neox.xz")
    texts = ["<|endoftext|>", "<|padding|>", *characters, *(merge.replace(" ", "") for merge in merges)]
    n_plain = len(texts)
    texts += (" " * n for n in _BLANKS)
    texts += (f"[PAD{n}]" for n in range(len(texts), _ROWS))
    types = [TokenType.CONTROL] * 2 + [TokenType.NORMAL] * (n_plain - 2)
    types += [TokenType.USER_DEFINED] * (len(texts) - n_plain)
    found = _vocabulary(files, config, size, ("gpt2", "mpt", "GPT-NeoX"), texts, types, {"bos": 0, "eos": 0, "unk": 0})
    found.merges = PackedStrings(merges)
    return found


def read_llama_2(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, _pre: str | None) -> Vocabulary:
    """Llama 2's vocabulary, the first tokens of it where the model has fewer."""
    pieces = _lines("llama_2.xz")
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *pieces]
    types = [TokenType.UNKNOWN, *[TokenType.CONTROL] * 2, *[TokenType.BYTE] * 256, *[TokenType.NORMAL] * len(pieces)]
    scores = [0.0] * (3 + 256)
    scores += (-float(n) if text.strip(SPACE) else _NEVER for n, text in enumerate(pieces))
    found = _vocabulary(
        files, config, size, ("llama", "default", "Llama 2"), texts, types, {"bos": 1, "eos": 2, "unk": 0}
    )
    found.scores = array("f", scores[: len(found)])
    found.more.boolean("tokenizer.ggml.add_bos_token", True)
    found.more.boolean("tokenizer.ggml.add_eos_token", False)
    return found


@cache
def brought_template(name: str) -> str:
    """The chat template of that name."""
    return str(json.loads(_unpacked("templates.xz"))[name])


def template_where_none(m: Metadata, name: str) -> None:
    """That template, where the model brings none."""
    if "tokenizer.chat_template" not in m:
        m.string("tokenizer.chat_template", brought_template(name))


def _unpacked(name: str) -> str:
    return lzma.decompress((_DATA / name).read_bytes()).decode()


def _lines(name: str) -> list[str]:
    return _unpacked(name).split("\n")


def _vocabulary(
    files: TokenizerFiles,
    config: Mapping[str, Any],
    size: int | None,
    names: tuple[str, str, str],
    texts: Sequence[str],
    types: Sequence[TokenType],
    ids: Mapping[str, int],
) -> Vocabulary:
    """As many of the tokens as the model has, with ids that config.json does not change.

    Raises
    ------
    InputMissing : there is a tokenizer, in a file that is not read, or the model has more tokens
    """
    model, pre, whose = names
    n_tokens = token_count(config, size, len(texts), "vocab_size")
    found = [name for pattern in _FOREIGN for name in files.names(pattern)]
    if found or n_tokens > len(texts):
        why = (
            f"{found[0]} is not read"
            if found
            else f"{whose}'s vocabulary has {len(texts)} tokens, the model {n_tokens}"
        )
        raise InputMissing(
            f"{files.folder} has no tokenizer.json or tokenizer.model, and {why}",
            "Copy the model's tokenizer files into the folder.",
        )
    vocabulary = Vocabulary.empty(model, pre, f"{whose}'s vocabulary", n_tokens)
    for index, (text, kind) in enumerate(zip(texts, types, strict=True)):
        if index < len(vocabulary):
            vocabulary.put(index, text, kind)
    vocabulary.more = Metadata()
    for name, number in ids.items():
        vocabulary.more.u32(id_key(name), number)
    vocabulary.warnings.append(
        f"{files.folder} has no tokenizer: it gets {whose}'s, which such models were trained with"
    )
    return vocabulary
