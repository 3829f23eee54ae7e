"""Tokenizers: from a checkpoint's files to the ``tokenizer.*`` keys of a GGUF file.

One entry point, ``tokenizer_metadata``, and one declarative description per family, ``TokenizerRule``. Keys, values
and their order are those of llama.cpp's converter; after them come ids it leaves out (see ``ends``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import BadInput, InputMissing, unreadable
from ...metadata import Metadata
from ...sources.checkpoint import Checkpoint
from .bpe import read_bpe, read_wordpiece
from .chat_template import chat_templates, write_chat_templates
from .ends import complete_ids
from .files import TokenizerFiles
from .hf_llama import is_hf_llama, read_hf_llama
from .packed import PackedStrings
from .pretokenizer import check_name
from .rules import BERT, BPE, GEMMA, GEMMA1, GEMMA3, LLAMA, QWEN, SPM, T5, TokenizerRule
from .special import SpecialTokens, lowercases
from .spm import MODELS, read_spm, read_t5
from .vocab_txt import with_tokenizer_json, without_what_loaders_assume
from .vocabulary import Vocabulary

__all__ = [
    "BERT",
    "BPE",
    "GEMMA",
    "GEMMA1",
    "GEMMA3",
    "LLAMA",
    "QWEN",
    "SPM",
    "T5",
    "PackedStrings",
    "Tokenizer",
    "TokenizerRule",
    "tokenizer_metadata",
]


@dataclass(frozen=True)
class Tokenizer:
    """The outcome for one checkpoint.

    Attributes
    ----------
    metadata : ``tokenizer.*`` keys in the order they are written
    n_tokens : length of ``tokenizer.ggml.tokens``
    kind : the reader that was used, one of the rule's ``kinds``
    warnings : what a user should know
    """

    metadata: Metadata
    n_tokens: int
    kind: str
    warnings: list[str]


def tokenizer_metadata(
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    rule: TokenizerRule,
    *,
    vocab_size: int | None = None,
    pre: str | None = None,
) -> Tokenizer:
    """Read a checkpoint's tokenizer.

    Parameters
    ----------
    checkpoint : has the files; ``checkpoint.config`` is config.json as it stands
    config : the model configuration with defaults applied and ``text_config`` merged
    rule : the family's way
    vocab_size : number of tokens, where the family does not take the configuration's
    pre : name of the pre-tokenizer (``--pre``); detected when None

    Raises
    ------
    UsageError : no loader knows ``pre``
    InputMissing : no file of any of the rule's kinds is there
    BadInput : a file is damaged or does not fit the model, or the pre-tokenizer is unknown
    NoPermission : a file may not be read
    """
    if pre is not None:
        check_name(pre)
    try:
        whole = with_tokenizer_json(checkpoint) if "wordpiece" in rule.kinds else checkpoint
        tokenizer = _tokenizer(TokenizerFiles(whole), config, rule, vocab_size, pre)
        if whole is not checkpoint:
            tokenizer.warnings.extend(without_what_loaders_assume(tokenizer.metadata))
        return tokenizer
    except OSError as e:
        raise unreadable(e.filename, e) from None


def _tokenizer(
    files: TokenizerFiles, config: Mapping[str, Any], rule: TokenizerRule, vocab_size: int | None, pre: str | None
) -> Tokenizer:
    kind, read = _choose(files, rule)
    vocabulary = read(files, config, vocab_size, pre)
    ids = vocabulary.ids()
    warnings = vocabulary.warnings
    if pre is not None and vocabulary.pre != pre:
        warnings.append(f"--pre {pre} has no effect: {vocabulary.source} is no byte-level BPE")

    metadata = Metadata()
    if rule.prefix_from_config and "add_prefix_space" in files.tokenizer_config:
        metadata.boolean("tokenizer.ggml.add_space_prefix", files.tokenizer_config["add_prefix_space"])
    if kind == "wordpiece":
        metadata.u32("tokenizer.ggml.token_type_count", config.get("type_vocab_size", 1))
    vocabulary.write(metadata)
    if vocabulary.merges is not None:
        metadata.array("tokenizer.ggml.merges", "STRING", vocabulary.merges)
    special = SpecialTokens(files, len(vocabulary) if vocabulary.checks_ids else None)
    special.write(metadata)
    templates, more = chat_templates(files)
    write_chat_templates(templates, metadata)
    if lowercases(files.tokenizer_head.get("normalizer")):
        metadata.boolean("tokenizer.ggml.normalizer.lowercase", True)
    _write_fixed(rule, kind, config, metadata)
    complete_ids(metadata, files, config, special, ids, vocabulary.types)
    return Tokenizer(metadata, len(vocabulary), kind, [*warnings, *special.warnings, *more])


_Reader = Callable[[TokenizerFiles, Mapping[str, Any], "int | None", "str | None"], Vocabulary]


def _has_json(files: TokenizerFiles) -> bool:
    pair = files.has("vocab.json") and files.has("merges.txt")
    return files.has("tokenizer.json") or pair


#: kind -> whether the files are there, how to read them, what they are called
_READERS: dict[str, tuple[Callable[[TokenizerFiles], bool], _Reader, str]] = {
    "spm": (
        lambda files: files.has("tokenizer.model"),
        lambda files, config, size, pre: read_spm(files, config, size),
        "tokenizer.model",
    ),
    "hf-llama": (
        is_hf_llama,
        lambda files, config, size, pre: read_hf_llama(files, config, size),
        "tokenizer.json",
    ),
    "bpe": (_has_json, read_bpe, "tokenizer.json"),
    "t5": (
        lambda files: any(map(files.has, MODELS)),
        lambda files, config, size, pre: read_t5(files, config, size),
        "tokenizer.model",
    ),
    "wordpiece": (_has_json, read_wordpiece, "tokenizer.json"),
}


def _choose(files: TokenizerFiles, rule: TokenizerRule) -> tuple[str, _Reader]:
    """The first of the rule's kinds whose files are there."""
    for kind in rule.kinds:
        present, read, _ = _READERS[kind]
        if present(files):
            return kind, read
    names = " or ".join(dict.fromkeys(_READERS[kind][2] for kind in rule.kinds))
    if files.has("tekken.json"):
        raise BadInput(
            f"{files.folder} has its tokenizer only as tekken.json, which is not read",
            f"Put {names} of the same model beside it.",
        )
    raise InputMissing(f"{files.folder} has no {names}", "Copy the model's tokenizer files into the folder.")


def _write_fixed(rule: TokenizerRule, kind: str, config: Mapping[str, Any], metadata: Metadata) -> None:
    """Add what the family fixes."""
    fixed = dict(rule.by_vocab_size.get(config.get("vocab_size", 0), {}))
    if rule.eot_token_id is not None:
        fixed["eot_token_id"] = rule.eot_token_id
    for key, value in fixed.items():
        if isinstance(value, bool):
            metadata.boolean(f"tokenizer.ggml.{key}", value)
        else:
            metadata.u32(f"tokenizer.ggml.{key}", value)
    if rule.add_space_prefix is not None and kind == "spm":
        metadata.boolean("tokenizer.ggml.add_space_prefix", rule.add_space_prefix)
