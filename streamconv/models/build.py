"""A checkpoint becomes a model: its metadata and its tensors as row sources, named and ordered for GGUF.

Reads headers, configuration and tokenizer only; not one weight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from ..errors import BadInput
from ..kit import cut
from ..metadata import Metadata
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from .config import Config, normalise
from .family import Family
from .general import general_metadata
from .names import stem_of
from .rules import bind
from .tokenizers import tokenizer_metadata

_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class Model:
    """What a target writes.

    Attributes
    ----------
    arch : GGUF architecture
    metadata : key/values in file order; ``general.file_type`` still 0
    tensors : GGUF name -> rows, in the order of the source
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


def build(
    checkpoint: Checkpoint,
    family: Family,
    *,
    pre: str | None = None,
    vocab_only: bool = False,
    model_name: str | None = None,
) -> Model:
    """The model in ``checkpoint`` as ``family`` describes it.

    Parameters
    ----------
    pre : name of the BPE pre-tokenizer, overriding its detection
    vocab_only : no tensors
    model_name : overrides ``general.name``

    Raises
    ------
    BadInput : a name, shape or value does not fit the family; names file, tensor or key
    InputMissing : no tokenizer
    """
    config = normalise(family.section(checkpoint.config), family.defaults, family.derive_head_dim, checkpoint)
    family = family.variant(family, config)
    told = _judged(checkpoint, family, config)
    left_out: dict[str, str] = {}
    tensors = {} if vocab_only else _named(checkpoint, family, config, left_out)
    warnings = [*checkpoint.warnings, *told]
    vocabulary = Metadata()
    if family.tokenizer is not None:
        n_tokens = family.n_tokens(config)
        tokenizer = tokenizer_metadata(checkpoint, config.values, family.tokenizer, vocab_size=n_tokens, pre=pre)
        warnings += tokenizer.warnings
        vocabulary = tokenizer.metadata
        if "token_embd.weight" in tensors:
            _fit_vocabulary(tensors, tokenizer.n_tokens, tensors["token_embd.weight"].shape[0], family)
    metadata = Metadata()
    metadata.string("general.architecture", family.arch)
    total, shared, expert, n_experts = _sizes(tensors)
    metadata.update(
        general_metadata(
            checkpoint, kind=family.kind, model_name=model_name, n_params=total, n_shared=shared, n_expert=expert,
            n_experts=n_experts, warnings=warnings,
        )
    )  # fmt: skip
    for key in family.keys:
        key(metadata, family.arch, config)
    metadata.u32("general.quantization_version", 2)
    metadata.update(vocabulary)
    forced = {name: family.kept_type(rows) or family.forced_type(name) for name, rows in tensors.items()}
    return Model(family.arch, metadata, tensors, left_out, warnings, {n: t for n, t in forced.items() if t})


def _judged(checkpoint: Checkpoint, family: Family, config: Config) -> list[str]:
    """What config.json says otherwise than runtimes compute, where that may be told; BadInput where it may not."""
    told = []
    for key, assumed in family.assumes.items():
        stated = config.rope.get(key) if config.get(key) is None else config.get(key)
        if stated is None or stated in assumed.values:
            continue
        if not assumed.otherwise:
            known = " or ".join(map(repr, assumed.values))
            raise BadInput(
                f"{checkpoint.folder / 'config.json'}: {key!r} is {stated!r}, runtimes compute {family.arch!r} with {known}",
                "No key of a GGUF file says so, so the output would be another model.",
            )
        told.append(f"config.json: {key!r} is {stated!r}, but {assumed.otherwise}")
    return told


def _sizes(tensors: Mapping[str, Rows]) -> tuple[int, int, int, int]:
    """Parameters, those outside experts, those of one expert in every block, and experts; see ``general.size_label``."""
    parts = {name: rows.shape[0] for name, rows in tensors.items() if "_exps." in name}
    n_params = sum(prod(rows.shape) for rows in tensors.values())
    n_expert = sum(prod(tensors[name].shape) // n for name, n in parts.items())
    n_shared = n_params - sum(prod(tensors[name].shape) for name in parts)
    n_experts = sum(parts.values()) // len(parts) if parts else 0
    return n_params, n_shared, n_expert, n_experts


def _named(checkpoint: Checkpoint, family: Family, config: Config, left_out: dict[str, str]) -> dict[str, Rows]:
    """GGUF name -> transformed rows, made tensors first, then in source order."""
    spelled: dict[str, Rows] = {}
    source_names: dict[str, str] = {}
    for source_name, rows in checkpoint.tensors.items():
        name, kept = family.spelled(source_name, config), family.kept_type(rows)
        why = family.why_not(source_name) or family.why_dropped(name)
        if why is not None:
            left_out[source_name] = why
            continue
        name = f"{name}:{kept}" if kept else name
        if name in spelled:
            raise BadInput(f"{checkpoint.path}: tensor {source_name!r} is there twice, as {source_names[name]!r} too")
        spelled[name], source_names[name] = rows, source_name

    def unknown(name: str) -> BadInput:
        return BadInput(
            f"{checkpoint.path}: tensor {source_names[name]!r} has no place in architecture {family.arch!r}",
            "If it belongs to another module, or the checkpoint is quantized, this version cannot convert it.",
        )

    found: dict[str, Rows] = {}
    for name, rows, sources in bind(spelled, family.tensor_names, config, unknown):
        source = source_names.get(sources, sources)
        if name in found:
            raise BadInput(f"{checkpoint.path}: tensor {source!r} appears twice, as {name!r}")
        _check_shape(checkpoint, source, rows, name, family, config)
        transform = family.transform_of(stem_of(name))
        found[name] = rows if transform is None else transform(rows, config)
    _check_complete(checkpoint, family, found, config)
    return found


def _check_shape(
    checkpoint: Checkpoint, source_name: str, rows: Rows, name: str, family: Family, config: Config
) -> None:
    expected = family.shapes.get(stem_of(name))
    if expected is None:
        return
    if name.endswith(".bias"):
        expected = expected[:1]
    want = [None if e == "vocabulary" else sum(_size(term, config) for term in e.split(" + ")) for e in expected]
    fits = len(want) == len(rows.shape) and all(w in (None, s) for w, s in zip(want, rows.shape, strict=True))
    if not fits:
        shown = "[" + ", ".join("vocabulary" if w is None else str(w) for w in want) + "]"
        raise BadInput(
            f"{checkpoint.path}: tensor {source_name!r} has shape {list(rows.shape)}, config.json asks for {shown}",
            "Tensor and config.json do not belong together; fetch the checkpoint again.",
        )


def _size(term: str, config: Config) -> int:
    """What a word of ``Family.shapes`` stands for."""
    if term == "hidden":
        return config.hidden
    if term == "ffn":
        return config.integer("intermediate_size")
    return {"head_dim": 1, "q": config.n_heads, "kv": config.n_kv_heads}[term] * config.head_dim


def _check_complete(checkpoint: Checkpoint, family: Family, found: Mapping[str, Rows], config: Config) -> None:
    n_layers = family.n_blocks(config) if family.needed or any(map(_BLOCK.match, found)) else 0
    missing = family.missing(found, n_layers)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise BadInput(
            f"{checkpoint.path}: no tensor for {', '.join(missing[:3])}{more} ({n_layers} layers per config.json)",
            "A shard is missing, or config.json is of another model.",
        )
    beyond = [n for n in found if (m := _BLOCK.match(n)) and int(m[1]) >= n_layers]
    if beyond:
        raise BadInput(f"{checkpoint.path}: {beyond[0]} lies beyond the {n_layers} layers of config.json")


def _fit_vocabulary(tensors: dict[str, Rows], n_tokens: int, n_rows: int, family: Family) -> None:
    """Make embedding and token list agree, since loaders refuse a difference."""
    if n_rows < n_tokens:
        raise BadInput(
            f"the tokenizer has {n_tokens} tokens, the embedding only {n_rows} rows",
            "Tokenizer and weights do not belong together; use the tokenizer files of this checkpoint.",
        )
    if n_rows > n_tokens and family.cut_vocabulary:
        for name in ("token_embd.weight", "output.weight"):
            if name in tensors:
                tensors[name] = cut(tensors[name], 0, n_tokens)
    elif n_rows > n_tokens:
        raise BadInput(f"the embedding has {n_rows} rows, the tokenizer {n_tokens} tokens")
