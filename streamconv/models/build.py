"""A checkpoint becomes a model: its metadata and its tensors as row sources, named and ordered for GGUF.

Reads headers, configuration and tokenizer only; not one weight.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from ..errors import BadInput, UsageError
from ..kit import cut
from ..metadata import BadValue, Metadata
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from ..sources.naming import shown
from ..sources.state_dicts import is_of_adapter, refuse_adapter, refuse_unsaved
from .assumed import judged, unknown
from .config import Config, Further, normalise
from .contradictions import contradictions
from .family import Family
from .further import without_effect, written
from .general import general_metadata
from .keys import Key
from .names import hint_of_stranger, stem_of
from .rules import bind, fitting
from .tokenizers import COUNTED, tokenizer_metadata

_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class Model:
    """What a target writes.

    Attributes
    ----------
    arch : GGUF architecture
    metadata : key/values in file order; ``general.file_type`` still 0, or what the family calls such files
    tensors : GGUF name -> rows, in the order of the source
    made_of : GGUF name -> names of the tensors of the source; none where it is made from nothing
    left_out : tensors of the source that are not part of this model, and why
    forced_types : name -> tensor type that runtimes expect whatever the file type is
    warnings : what a user should know
    """

    arch: str
    metadata: Metadata
    tensors: Mapping[str, Rows]
    left_out: Mapping[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    forced_types: Mapping[str, str] = field(default_factory=dict)
    made_of: Mapping[str, str] = field(default_factory=dict)


def settled(checkpoint: Checkpoint, family: Family, further: Further = "kept") -> tuple[Family, Config]:
    """The configuration as ``family`` reads it, and the family that it means."""
    config = normalise(family.section(checkpoint.config), family.classes, checkpoint)
    config = replace(config, further=further)
    return family.variant(family, config), config


def build(
    checkpoint: Checkpoint,
    family: Family,
    *,
    pre: str | None = None,
    vocab_only: bool = False,
    model_name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    further: Further = "kept",
    target: Family | None = None,
) -> Model:
    """The model in ``checkpoint`` as ``family`` describes it.

    Parameters
    ----------
    pre : name of the BPE pre-tokenizer, overriding its detection
    vocab_only : no tensors
    model_name : overrides ``general.name``
    overrides : keys of ``general_metadata``
    further : what is written of blocks that predict further tokens
    target : the family of ``checkpoint.target``

    Raises
    ------
    UsageError : an option has no effect on the family, or one is missing
    BadInput : a name or value does not fit the family; names file, tensor or key
    InputMissing : no tokenizer
    """
    family, config = settled(checkpoint, family, further)
    _refuse_target(checkpoint, family)
    warnings = [
        *checkpoint.warnings, *judged(config, family.assumes, family.arch), *without_effect(family, config),
    ]  # fmt: skip
    left_out: dict[str, str] = {}
    made_of: dict[str, str] = {}
    tensors = {} if vocab_only else _named(checkpoint, family, config, left_out, made_of)
    vocabulary = Metadata()
    owner, reading = _owner(family, config, target)
    if owner.tokenizer is not None:
        assert reading.checkpoint is not None
        n_tokens = owner.n_tokens(reading)
        tokenizer = tokenizer_metadata(
            reading.checkpoint, reading.values, owner.tokenizer, vocab_size=n_tokens, pre=pre
        )
        warnings += tokenizer.warnings
        vocabulary = tokenizer.metadata
        if "token_embd.weight" in tensors:
            _fit_vocabulary(tensors, vocabulary, config, family)
        if tokenizer.kind in COUNTED:
            vocabulary.u32(f"{family.arch}.vocab_size", tokenizer.n_tokens)
    metadata = Metadata()
    metadata.string("general.architecture", family.arch)
    total, shared, expert, n_experts = _sizes(tensors)
    metadata.update(
        general_metadata(
            checkpoint, kind=family.kind, model_name=model_name, n_params=total, n_shared=shared, n_expert=expert,
            n_experts=n_experts, overrides=overrides, warnings=warnings,
        )
    )  # fmt: skip
    _write(family.keys, metadata, family, config)
    if vocabulary.values:
        if owner is not family:
            _write(owner.token_keys, vocabulary, family, reading)
        _write(family.token_keys, vocabulary, family, config)
    warnings += _told(checkpoint, family, config, tensors)
    _check_blocks(checkpoint, tensors, metadata.get(f"{family.arch}.block_count"))
    metadata.u32("general.quantization_version", 2)
    metadata.update(vocabulary)
    forced = {name: family.kept_type(rows) or family.forced_type(name, rows) for name, rows in tensors.items()}
    return Model(family.arch, metadata, tensors, left_out, warnings, {n: t for n, t in forced.items() if t}, made_of)


def renamed(
    tensors: Mapping[str, Rows], where: Path, checkpoint: Checkpoint, family: Family
) -> tuple[dict[str, Rows], dict[str, str], dict[str, str]]:
    """Some tensors of a model, such as those that an adapter changes: rows by GGUF name, ``left_out`` and ``made_of`` of ``Model``.

    Parameters
    ----------
    tensors : name in the checkpoint -> rows
    where : what has them, for messages
    checkpoint : the model, whose own tensors are not looked at

    Raises
    ------
    BadInput : a name or a shape does not fit the family, or a tensor is made of several of which some are not there
    """
    some = replace(checkpoint, tensors=tensors, path=where)
    family, config = settled(replace(checkpoint, tensors=tensors), family)
    family = replace(family, rules=tuple(part for rule in family.rules if rule.sources for part in rule.parts()))
    left_out: dict[str, str] = {}
    made_of: dict[str, str] = {}
    found = _named(some, family, config, left_out, made_of)
    if family.further is None:  # some count the blocks behind all others by the tensors of the whole model
        _check_blocks(some, found, config.n_layers + (config.get("num_nextn_predict_layers") or 0))
    return found, left_out, made_of


def _owner(family: Family, config: Config, target: Family | None) -> tuple[Family, Config]:
    """The family whose tokenizer is read, and the configuration with the files that it is read of.

    A draft model has the tokenizer of the model it helps, with as many tokens as its own configuration says.
    """
    if not family.target:
        return family, config
    reading = replace(config, checkpoint=config.target)
    if family.target == "family" and target is not None and not target.target:
        return settled(config.target, target)[0], reading
    return family, reading


def _write(keys: Iterable[Key], metadata: Metadata, family: Family, config: Config) -> None:
    for key in keys:
        try:
            key(metadata, family.arch, config)
        except BadValue as e:
            raise BadInput(f"{config.place}: {e.message}") from None


def _refuse_target(checkpoint: Checkpoint, family: Family) -> None:
    """UsageError where a draft model lacks the model that it helps, or another model is said to help one."""
    if family.target and checkpoint.target is None:
        raise UsageError(
            f"{checkpoint.path} drafts for another model ({family.arch!r}), whose tokenizer it has",
            "Name the folder of that model, or its name on the hub, with --target-model-dir.",
        )
    if checkpoint.target is not None and not family.target:
        raise UsageError(
            f"--target-model-dir has no effect on {family.arch!r}, which takes nothing of another model",
            "Leave it out.",
        )


def _told(checkpoint: Checkpoint, family: Family, config: Config, tensors: Mapping[str, Rows]) -> Iterator[str]:
    """What config.json says that the output does not hold, where that may be told."""
    if family.kind != "model":
        return
    if names := unknown(config, family.assumes, family.idle):
        said = ", ".join(map(shown, names))
        yield f"{config.place} says {said}, which this version does not know for {family.arch!r}"
    yield from contradictions(config, tensors)
    if not tensors:
        return
    if config.rope.get("rope_type") == "llama3" and "rope_freqs.weight" not in tensors:
        raise BadInput(
            f"{config.place}: 'rope_type' is 'llama3', which no runtime computes for {family.arch!r}",
            "No GGUF key expresses this, so the output would be a different model.",
        )


def _sizes(tensors: Mapping[str, Rows]) -> tuple[int, int, int, int]:
    """Parameters, those outside experts, those of one expert in every block, and experts; see ``general.size_label``."""
    parts = {name: prod(rows.shape[:1]) for name, rows in tensors.items() if "_exps." in name}
    n_params = sum(prod(rows.shape) for rows in tensors.values())
    n_expert = sum(prod(tensors[name].shape[1:]) for name in parts)
    n_shared = n_params - sum(prod(tensors[name].shape) for name in parts)
    n_experts = sum(parts.values()) // len(parts) if parts else 0
    return n_params, n_shared, n_expert, n_experts


def _named(
    checkpoint: Checkpoint, family: Family, config: Config, left_out: dict[str, str], made_of: dict[str, str]
) -> dict[str, Rows]:
    """GGUF name -> transformed rows, made tensors first, then in source order."""
    adapters = {n: family.spelled(n, config) for n in checkpoint.tensors if is_of_adapter(n)}
    stray = (n for n, name in adapters.items() if not family.why_dropped(name) and not family.has_rule(name, config))
    refuse_adapter({n: checkpoint.tensors[n] for n in stray}, checkpoint.path)
    spelled: dict[str, Rows] = {}
    source_names: dict[str, str] = {}
    why_not_written = written(family, config)
    for source_name, rows in checkpoint.tensors.items():
        name, kept = family.spelled(source_name, config), family.kept_type(rows)
        why = family.why_not(source_name) or why_not_written(name) or family.why_dropped(name)
        if why is not None:
            left_out[source_name] = why
            continue
        name = f"{name}:{kept}" if kept else name
        if name in spelled:
            raise BadInput(f"{checkpoint.path}: tensor {source_name!r} appears twice, as {source_names[name]!r} too")
        spelled[name], source_names[name] = rows, source_name

    refuse_unsaved({source_names[name]: rows for name, rows in spelled.items()}, checkpoint.path)

    def unknown(name: str) -> BadInput:
        return BadInput(
            f"{checkpoint.path}: tensor {source_names[name]!r} has no place in architecture {family.arch!r}",
            hint_of_stranger(source_names[name]),
        )

    found: dict[str, Rows] = {}
    for name, rows, sources in bind(spelled, family.tensor_names, config, unknown):
        source = source_names.get(sources, sources)
        if name in found:
            raise BadInput(f"{checkpoint.path}: tensor {source!r} appears twice, as {name!r}")
        transform = family.transform_of(stem_of(name))
        made_of[name] = source
        with fitting(source, [rows], config):
            found[name] = rows if transform is None else transform(rows, config)
    if not found:
        raise BadInput(
            f"{checkpoint.path}: no tensor belongs to architecture {family.arch!r}", "Is this the whole checkpoint?"
        )
    return found


def _check_blocks(checkpoint: Checkpoint, tensors: Mapping[str, Rows], n_blocks: int | None) -> None:
    beyond = [n for n in tensors if (m := _BLOCK.match(n)) and n_blocks is not None and int(m[1]) >= n_blocks]
    if beyond:
        raise BadInput(f"{checkpoint.path}: {beyond[0]} lies beyond the {n_blocks} layers of config.json")


def _fit_vocabulary(tensors: dict[str, Rows], vocabulary: Metadata, config: Config, family: Family) -> None:
    """Make embedding and token list agree, since loaders refuse a difference."""
    tokens = vocabulary.get("tokenizer.ggml.tokens", ())
    n_tokens, n_rows = len(tokens), prod(tensors["token_embd.weight"].shape[:1])
    if n_rows > n_tokens and family.cut_vocabulary:
        for name in ("token_embd.weight", "output.weight"):
            if name in tensors:
                tensors[name] = cut(tensors[name], 0, n_tokens)
    elif n_rows != n_tokens:
        own = next((i + 1 for i in range(n_tokens - 1, -1, -1) if tokens[i] != f"[PAD{i}]"), 0)
        stated, size = config.raw_value("vocab_size"), config.get("vocab_size")
        said = f"says vocab_size {stated}" if stated is not None else f"has no vocab_size (its class default is {size})"
        raise BadInput(
            f"{config.folder}: the embedding has {n_rows} rows, the tokenizer {own} tokens, config.json {said}",
            f"Write vocab_size {n_rows} into config.json, as many as the embedding has rows."
            if own <= n_rows
            else "The tokenizer and the weights are from different models; use the tokenizer files of this checkpoint.",
        )
