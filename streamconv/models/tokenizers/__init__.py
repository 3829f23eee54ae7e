"""Tokenizers: from a checkpoint's files to the ``tokenizer.*`` keys of a GGUF file.

One entry point, ``tokenizer_metadata``, and one declarative description per family, ``TokenizerRule``. Keys, values
and their order are those of llama.cpp's converter; after them come ids it leaves out (see ``ends``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import BadInput, InputMissing, StreamconvError, unreadable
from ...metadata import Metadata
from ...sources.checkpoint import Checkpoint
from ...sources.naming import shown_list
from .arctic import read_arctic
from .bpe import read_bpe, read_wordpiece, read_words
from .brought_along import brought_template, read_gpt_neox, read_llama_2
from .chat_template import chat_templates, write_chat_templates
from .chatglm import read_chatglm
from .ends import complete_ids
from .files import TokenizerFiles
from .json_model import holds_pieces, names_byte_level
from .json_pieces import read_json_pieces
from .kimi import MODEL as RANKS
from .kimi import read_kimi, read_kimi_linear
from .mistral import MISTRAL, TEKKEN, read_tekken
from .packed import PackedStrings
from .pretokenizer import check_name
from .rules import BERT, BPE, GEMMA, GEMMA1, GEMMA3, LLAMA, QWEN, SPM, T5, Reader, TokenizerRule
from .special import SpecialTokens, normalizing
from .spm import MODELS, read_spm, read_t5
from .vocab_txt import with_tokenizer_json, without_what_is_not_stated
from .vocabulary import Vocabulary, token_count
from .xlmr import MODEL, read_xlmr_json, read_xlmr_pieces

__all__ = [
    "ARCTIC",
    "BERT",
    "BPE",
    "CHATGLM",
    "COUNTED",
    "GEMMA",
    "GEMMA1",
    "GEMMA3",
    "GPT_NEOX",
    "GPT_NEOX_OR_PIECES",
    "KIMI",
    "KIMI_LINEAR",
    "LLAMA",
    "LLAMA_2",
    "MISTRAL",
    "QWEN",
    "SPM",
    "SPM_PREFIXED",
    "T5",
    "WHITESPACE",
    "XLMR",
    "PackedStrings",
    "Tokenizer",
    "TokenizerRule",
    "tokenizer_metadata",
]

#: XLM-R and its kin
XLMR = TokenizerRule(
    ("pieces", "unigram"), own={"pieces": (MODEL, read_xlmr_pieces), "unigram": ("tokenizer.json", read_xlmr_json)}
)
#: Jina's English embedder, whose words are parted by blanks alone
WHITESPACE = TokenizerRule(("words",), own={"words": ("tokenizer.json", read_words)})
KIMI = TokenizerRule(("bpe", "ranks"), own={"ranks": (RANKS, read_kimi)})
KIMI_LINEAR = TokenizerRule(("bpe", "ranks"), own={"ranks": (RANKS, read_kimi_linear)})
CHATGLM = TokenizerRule(("bpe", "pieces"), own={"pieces": ("tokenizer.model", read_chatglm)})
ARCTIC = TokenizerRule(("pieces",), own={"pieces": ("tokenizer.model", read_arctic)})
#: Mamba and OpenELM, whose published files have no vocabulary
GPT_NEOX = TokenizerRule(("bpe", "spm", "packed"), own={"packed": ("", read_gpt_neox)})
GPT_NEOX_OR_PIECES = TokenizerRule(("spm", "bpe", "packed"), own=GPT_NEOX.own)
LLAMA_2 = TokenizerRule(("spm", "packed"), own={"packed": ("", read_llama_2)})
SPM_PREFIXED = TokenizerRule(("spm",), prefix_from_config=True)
#: kinds of vocabularies whose file says how many tokens the model has, whatever config.json says
COUNTED = ("tekken", "versioned")
_PREFIX = "tokenizer.ggml.add_space_prefix"


@dataclass(frozen=True)
class Tokenizer:
    """The outcome for one checkpoint.

    Attributes
    ----------
    metadata : ``tokenizer.*`` keys in the order they are written
    n_tokens : length of ``tokenizer.ggml.tokens``
    kind : of the vocabulary, as the ``kinds`` of rules
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
            tokenizer.warnings.extend(without_what_is_not_stated(tokenizer.metadata))
        return tokenizer
    except OSError as e:
        raise unreadable(e.filename, e) from None


def _tokenizer(
    files: TokenizerFiles, config: Mapping[str, Any], rule: TokenizerRule, vocab_size: int | None, pre: str | None
) -> Tokenizer:
    kind, read, skipped = _choose(files, rule)
    vocabulary = read(files, config, vocab_size, pre)
    ids = vocabulary.ids()
    warnings = [*skipped, *vocabulary.warnings]
    if pre is not None and vocabulary.pre != pre:
        warnings.append(f"--pre {pre} has no effect: {vocabulary.source} is not byte-level BPE")

    metadata = Metadata()
    _write_prefix(rule, files, vocabulary.adds_prefix, metadata, warnings)
    if kind == "wordpiece":
        metadata.u32("tokenizer.ggml.token_type_count", token_count(config, None, 1, "type_vocab_size"))
    vocabulary.write(metadata)
    if vocabulary.merges is not None:
        metadata.array("tokenizer.ggml.merges", "STRING", vocabulary.merges)
    templates, more = chat_templates(
        files, vocabulary.template, brought_template(rule.template) if rule.template else ""
    )
    if vocabulary.specials is not None:
        metadata.update(vocabulary.specials)
        if not templates:
            more.append(
                f"{vocabulary.source} is of a version whose chat template is not known, and no chat_template.jinja"
                " lies beside it: none is written"
            )
        write_chat_templates(templates, metadata)
        return Tokenizer(metadata, len(vocabulary), kind, [*warnings, *more])
    special = SpecialTokens(files, len(vocabulary) if vocabulary.checks_ids else None, rule.end_from_config)
    special.write(metadata)
    write_chat_templates(templates, metadata)
    stated = files.tokenizer_head.get("normalizer")
    normalizer = normalizing(stated)
    for key in sorted(normalizer):
        metadata.boolean(f"tokenizer.ggml.normalizer.{key}", normalizer[key])
    if (
        kind == "wordpiece"
        and "strip_accents" not in normalizer
        and not normalizer.get("lowercase", stated is not None)
    ):
        kept = "accents" if "lowercase" in normalizer else "capitals and accents"
        warnings.append(f"{vocabulary.source} keeps {kept}, which loaders take off where no key of the output says so")
    _write_fixed(rule, kind, config, metadata)
    complete_ids(metadata, files, config, special, ids, vocabulary.types)
    warnings += _edges(files)
    return Tokenizer(metadata, len(vocabulary), kind, [*warnings, *special.warnings, *more])


def _edges(files: TokenizerFiles) -> Iterator[str]:
    """What to tell of added tokens around which blanks and words count: a GGUF file has no place for that."""
    tokens = {t.text for t in (*files.added_tokens, *files.declared_tokens) if t.has_edges} - {
        files.special_text("mask")
    }
    if tokens:
        yield (
            f"{files.folder}: {shown_list(tokens)} take blanks beside them, or stand for whole words only"
            " (lstrip, rstrip, single_word), which most runtimes do not know of"
        )


def _choose(files: TokenizerFiles, rule: TokenizerRule) -> tuple[str, Reader, list[str]]:
    """The first of the rule's kinds that is there, its reader, and what is not read.

    A tokenizer.json is what it holds, byte-level BPE or SentencePiece's pieces, whatever the family mostly has. Pieces are read
    from tokenizer.model where there is one, which has their scores; but a byte-level tokenizer.json is what transformers takes,
    so a tokenizer.model beside it is of something else.
    """
    names: list[str] = []
    if "tekken" in rule.kinds and files.has(TEKKEN) and not files.has("tokenizer.json"):
        return "tekken", read_tekken, []
    for kind in rule.kinds:
        if kind in rule.own:
            name, reader = rule.own[kind]
            names += [name] * bool(name)
            if not name or files.has(name) or files.names(name):
                return kind, reader, []
        elif kind == "tekken":  # see above
            continue
        elif kind == "spm":
            names.append("tokenizer.model")
            if files.has("tokenizer.model"):
                if not (files.has("tokenizer.json") and names_byte_level(files)):
                    return kind, _spm, []
                told = f"{files.folder}/tokenizer.model is not read: the vocabulary of tokenizer.json is byte-level"
                if "bpe" in rule.kinds:
                    return "bpe", read_bpe, [f"{told}, and that is the one transformers uses"]
                return (
                    kind,
                    _spm,
                    [f"{files.folder}/tokenizer.json, which is byte-level, is not read: tokenizer.model is"],
                )
            if holds_pieces(files):
                return kind, _json_pieces, []
        elif kind == "t5":
            names.append("tokenizer.model")
            if any(map(files.has, MODELS)):
                return kind, _t5, []
        else:
            names.append("tokenizer.json")
            if files.has("tokenizer.json") or (files.has("vocab.json") and files.has("merges.txt")):
                if kind == "wordpiece":
                    return kind, read_wordpiece, []
                if not holds_pieces(files):
                    return kind, read_bpe, []
                return "spm", _spm if "spm" in rule.kinds and files.has("tokenizer.model") else _json_pieces, []
    raise _missing(files, list(dict.fromkeys(names)))


def _spm(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, pre: str | None) -> Vocabulary:
    return read_spm(files, config, size)


def _t5(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, pre: str | None) -> Vocabulary:
    return read_t5(files, config, size)


def _json_pieces(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, pre: str | None) -> Vocabulary:
    return read_json_pieces(files, config, size)


def _missing(files: TokenizerFiles, names: list[str]) -> StreamconvError:
    wanted, owners = " or ".join(names), files.owners()
    for format_, pattern in (("Mistral's own format", "tekken.json"), ("tiktoken's format", "*tiktoken*")):
        if found := files.names(pattern):
            return BadInput(
                f"{files.called(found[0]).parent} has its tokenizer only as {found[0]}, {format_}, which is not read",
                f"Put {wanted} of the same model beside it.",
            )
    folders = ", ".join(map(str, owners[:-1])) + f" and {owners[-1]}" if owners[1:] else str(owners[0])
    other = "tokenizer.json" if files.has("tokenizer.json") else ""
    return InputMissing(
        f"{folders} {'have' if owners[1:] else 'has'} no {wanted}" + (f"; {other} is of another kind" if other else ""),
        f"Copy the model's tokenizer files into {owners[0] if files.folder not in owners else 'the folder'}.",
    )


def _write_prefix(
    rule: TokenizerRule, files: TokenizerFiles, added: bool | None, metadata: Metadata, warnings: list[str]
) -> None:
    """Say whether a blank goes before each text, where a file says so; loaders take it for so where nothing does.

    Parameters
    ----------
    added : what a tokenizer.json of pieces does, None for other vocabularies
    """
    stated = files.flag("add_prefix_space") if rule.prefix_from_config else None
    if None not in (stated, added) and stated != added:
        warnings.append(
            f"tokenizer_config.json says add_prefix_space {stated}, tokenizer.json does the opposite: tokenizer_config.json is"
            " followed"
        )
    if stated is not None:
        metadata.boolean(_PREFIX, stated)
    elif added is False and rule.add_space_prefix is None:
        metadata.boolean(_PREFIX, False)


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
        metadata.boolean(_PREFIX, rule.add_space_prefix)
