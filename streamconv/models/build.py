"""A checkpoint becomes a model: its metadata and its tensors as row sources, named and ordered for GGUF.

Reads headers, configuration and tokenizer only; not one weight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from ..errors import BadInput
from ..kit import Constant, cut
from ..metadata import Metadata
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from .config import Config, normalise
from .family import Family
from .general import general_metadata
from .names import gguf_name, is_buffer, is_other_module, plain_name, stem_of
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
    n_layers, n_heads, n_kv_heads, n_experts : what the quantization mix asks about
    left_out : tensors of the source that are not part of this model, and why
    forced_types : name -> tensor type that runtimes expect whatever the file type is
    warnings : what a user should know
    """

    arch: str
    metadata: Metadata
    tensors: Mapping[str, Rows]
    n_layers: int
    n_heads: int
    n_kv_heads: int
    n_experts: int = 0
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
    config = normalise(checkpoint.config, family.defaults, family.derive_head_dim)
    left_out: dict[str, str] = {}
    tensors = {} if vocab_only else _named(checkpoint, family, config, left_out)
    embedding_rows = tensors["token_embd.weight"].shape[0] if "token_embd.weight" in tensors else None
    tokenizer = tokenizer_metadata(checkpoint, config.values, family.tokenizer, pre=pre)
    warnings = [*checkpoint.warnings, *tokenizer.warnings]
    if embedding_rows is not None:
        _fit_vocabulary(tensors, tokenizer.n_tokens, embedding_rows, family)
    n_params = sum(prod(rows.shape) for rows in tensors.values())
    metadata = Metadata()
    metadata.string("general.architecture", family.arch)
    metadata.update(general_metadata(checkpoint, n_params=n_params, model_name=model_name, warnings=warnings))
    for key in family.keys:
        key(metadata, family.arch, config)
    metadata.u32("general.quantization_version", 2)
    metadata.update(tokenizer.metadata)
    return Model(
        family.arch, metadata, tensors, config.n_layers, config.n_heads, config.n_kv_heads,
        left_out=left_out, warnings=warnings,
    )  # fmt: skip


def _named(checkpoint: Checkpoint, family: Family, config: Config, left_out: dict[str, str]) -> dict[str, Rows]:
    """GGUF name -> transformed rows, made tensors first, then in source order."""
    found: dict[str, Rows] = {}
    for name, values in family.extra_tensors(config).items():
        found[name] = Constant(values)
    for source_name, rows in checkpoint.tensors.items():
        if is_other_module(source_name) or is_buffer(source_name):
            left_out[source_name] = "a buffer" if is_buffer(source_name) else "not part of the text model"
            continue
        known = gguf_name(plain_name(source_name), family.names)
        if known is None:
            raise BadInput(
                f"{checkpoint.path}: tensor {source_name!r} has no place in architecture {family.arch!r}",
                "If it belongs to another module, or the checkpoint is quantized, this version cannot convert it.",
            )
        name = known
        if name == "output.weight" and family.drops_output:
            left_out[source_name] = "the runtime uses the embedding as output"
            continue
        if name in found:
            raise BadInput(f"{checkpoint.path}: tensor {source_name!r} appears twice, as {name!r}")
        _check_shape(checkpoint, source_name, rows, name, family, config)
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
    symbols = {
        "hidden": config.hidden,
        "head_dim": config.head_dim,
        "q": config.n_heads * config.head_dim,
        "kv": config.n_kv_heads * config.head_dim,
        "ffn": config.integer("intermediate_size"),
    }
    want = [None if e == "vocabulary" else sum(symbols[term] for term in e.split(" + ")) for e in expected]
    fits = len(want) == len(rows.shape) and all(w in (None, s) for w, s in zip(want, rows.shape, strict=True))
    if not fits:
        shown = "[" + ", ".join("vocabulary" if w is None else str(w) for w in want) + "]"
        raise BadInput(
            f"{checkpoint.path}: tensor {source_name!r} has shape {list(rows.shape)}, config.json asks for {shown}",
            "Tensor and config.json do not belong together; fetch the checkpoint again.",
        )


def _check_complete(checkpoint: Checkpoint, family: Family, found: Mapping[str, Rows], config: Config) -> None:
    missing = [name for name in family.needed_weights(config.n_layers) if name not in found]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise BadInput(
            f"{checkpoint.path}: no tensor for {', '.join(missing[:3])}{more} ({config.n_layers} layers per config.json)",
            "A shard is missing, or config.json is of another model.",
        )
    beyond = [n for n in found if (m := _BLOCK.match(n)) and int(m[1]) >= config.n_layers]
    if beyond:
        raise BadInput(f"{checkpoint.path}: {beyond[0]} lies beyond the {config.n_layers} layers of config.json")


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
