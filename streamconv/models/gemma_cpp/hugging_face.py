"""A weight file of gemma.cpp as a checkpoint of Hugging Face: its names, its shapes, a config.json and the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput
from ...file_names import SBS, container_of
from ...kit import Order, Reshaped, Transposed, cut, split, take
from ...quant.sbs.container import TOKENIZER
from ...rows import Rows, matrix_shape
from ...sources.checkpoint import Checkpoint
from ...sources.naming import shown, shown_list
from ...sources.sentencepiece import read_pieces
from .config_json import config_json, image_processor
from .model_config import ModelConfig
from .models import RETIRED
from .reading import NO_TENSORS, Contents, contents, entries_of, with_shapes
from .tensors import BIAS, NORM, PREFIXES, TEXT, Entry, tensors

#: files that tokenizers of gemma.cpp are published in, where weights do not hold them
_TOKENIZERS = ("tokenizer.model", "tokenizer.spm")
#: whose matrices of queries, keys and values lay in another order
_OTHER_ORDER = (2,)


def as_hugging_face(checkpoint: Checkpoint) -> Checkpoint:
    """``checkpoint`` as Hugging Face has such a model where it is a weight file of gemma.cpp, else the same object.

    Raises
    ------
    BadInput : a tensor is missing, twice there or of another shape, or transformers has no such model
    """
    if container_of(checkpoint.path.name) is not SBS or checkpoint.config or checkpoint.path.is_dir():
        return checkpoint
    found = with_shapes(contents(checkpoint))
    config = found.model()
    if config.model in _OTHER_ORDER:
        raise BadInput(f"{found.path} holds {RETIRED[config.model]}, whose heads lie in an order that is not known")
    made = _tensors(found, config)
    embedding = next(rows for name, rows in made.items() if name.endswith("embed_tokens.weight"))
    said = config_json(config, matrix_shape(embedding.shape)[0], found.path)
    notes: list[str] = []
    side: dict[str, Path | bytes] = {"config.json": _text(said)}
    if config.vit_config.layer_configs:
        side["preprocessor_config.json"] = _text(image_processor(config))
    tokenizer = found.tokenizer() or _beside(found.path, notes)
    if tokenizer is not None:
        side["tokenizer.model"] = tokenizer
        notes += _damaged(found, tokenizer)
    else:
        notes.append(f"{found.path} holds no tokenizer: put tokenizer.model beside it")
    if found.config is None:
        notes.append(f"{found.path} holds no configuration: by its keys it is {config.display_name}")
    return replace(
        checkpoint, tensors=made, config=said, side=side, name=checkpoint.name or found.path.stem,
        warnings=[*checkpoint.warnings, *notes, *_left(found, config)],
    )  # fmt: skip


def _text(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _damaged(found: Contents, tokenizer: bytes | Path) -> Iterator[str]:
    """What to tell of a tokenizer that no program can read."""
    try:
        if isinstance(tokenizer, bytes):
            read_pieces(tokenizer, found.path.with_name(f"{found.path.name}, {TOKENIZER}"))
    except BadInput as e:
        yield f"{e.message}; it is passed on as it is"


def _beside(path: Path, notes: list[str]) -> Path | None:
    """The tokenizer beside a file that holds none."""
    found = next((path.with_name(name) for name in _TOKENIZERS if path.with_name(name).is_file()), None)
    if found is not None:
        notes.append(f"{path} holds no tokenizer: {found.name} beside it is taken")
    return found


def _left(found: Contents, config: ModelConfig) -> list[str]:
    """What to tell of blobs that are no part of the model."""
    known = entries_of(config)
    blobs = {t.blob for name, t in found.tensors.items() if name in known}
    others = [key for key in found.blobs if key not in blobs and key not in NO_TENSORS]
    return [f"{found.path}: {shown_list(others)} is no tensor of the model, and is left out"] if others else []


def _tensors(found: Contents, config: ModelConfig) -> dict[str, Rows]:
    """Every tensor of Hugging Face, in the order in which gemma.cpp loads them."""
    possible = entries_of(config)
    made: dict[str, Rows] = {}
    origin: dict[str, str] = {}
    prefixes = {module: names[0] for module, names in PREFIXES.items()}
    if not config.vit_config.layer_configs:
        prefixes[TEXT] = PREFIXES[TEXT][-1]
    for key, entry in possible.items():
        if key not in found.tensors:
            continue
        parts = _apart(found, entry)
        for name, rows in zip(entry.names, parts, strict=True):
            if name in origin:
                raise BadInput(
                    f"{found.path} holds {shown(origin[name])} and {shown(key)}, which are the same in two layouts; no loader"
                    " takes both",
                    "Make the file again.",
                )
            made[prefixes[entry.module] + name], origin[name] = rows, key
    for entry in tensors(config):
        for name in entry.names:
            if name not in origin:
                others = [e.key for e in possible.values() if name in e.names and e.key != entry.key]
                instead = f", and so is {others[0]!r}, which would hold it too" if others else ""
                raise BadInput(f"{found.path}: tensor {entry.key!r} is missing{instead}", "Make the file again.")
    return made


def _apart(found: Contents, entry: Entry) -> list[Rows]:
    """The tensors of Hugging Face that ``entry`` is made of."""
    shape = found.tensors[entry.key].shape
    if shape != entry.shape:
        raise BadInput(
            f"{found.path}: {found.place(entry.key)} is {list(shape or ())}, by the configuration it is {list(entry.shape)}",
            "The configuration is of another model.",
        )
    is_vector = entry.kind in (NORM, BIAS) and entry.shape[0] == 1
    rows = found.rows(entry.key, entry.shape[1:] if is_vector else entry.shape)
    if entry.how == "zeros":
        if np.any(rows.read(0, 1)):
            raise BadInput(f"{found.path}: {found.place(entry.key)} is not zero, Hugging Face's class has no such bias")
        return []
    return _HOW[entry.how](rows, entry) if entry.how in _HOW else [rows]


def _heads(rows: Rows, entry: Entry) -> list[Rows]:
    n, width = entry.n_heads, entry.shape[0] // entry.n_heads
    ordered = take(rows, Order((width, n), (1, width)))
    return [Reshaped(ordered, (width, n * entry.width)) if n > 1 else ordered]


def _kv(rows: Rows, entry: Entry, first: int = 0) -> list[Rows]:
    n, width = entry.n_heads, entry.width
    return [take(rows, Order((n, width), (2 * width, 1), first + part * width)) for part in range(2)]


def _qkv(rows: Rows, entry: Entry) -> list[Rows]:
    n_query = entry.shape[0] - 2 * entry.n_heads * entry.width
    return [cut(rows, 0, n_query), *_kv(rows, entry, n_query)]


def _by_head(rows: Rows, entry: Entry) -> list[Rows]:
    n, width = entry.n_heads, entry.width
    parts = [take(rows, Order((n, width), (3 * width, 1), part * width)) for part in range(3)]
    return parts if entry.kind != BIAS else [Reshaped(part, (n * entry.shape[1],)) for part in parts]


def _patches(rows: Rows, entry: Entry) -> list[Rows]:
    n, numbers = entry.shape
    side = round((numbers // 3) ** 0.5)
    return [Reshaped(Transposed(Reshaped(rows, (n, side * side, 3))), (n, 3, side, side))]


_HOW: Mapping[str, Callable[[Rows, Entry], list[Rows]]] = {
    "stacked": lambda rows, entry: split(rows, [entry.shape[0] // 2] * 2),
    "heads": _heads,
    "kv": _kv,
    "qkv": _qkv,
    "by_head": _by_head,
    "patches": _patches,
    "transposed": lambda rows, _entry: [Transposed(rows)],
}
