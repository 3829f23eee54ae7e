"""A Hugging Face folder: the checkpoint's own tensors and files, decoded and in the precision asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ... import dequant
from ...errors import BadInput, UsageError
from ...quant.encode import FLOATS
from ...quant.types import TYPES, TensorType
from ...rows import Rows, walk
from ...sources.checkpoint import Checkpoint
from ...sources.hf_config import text_sections
from ...sources.sbs import SbsRows
from ...sources.state_dicts import refuse_unsaved
from ...targets import safetensors
from ...targets.layout import FileLayout, TensorInfo
from ..options import Options
from ..provenance import job_of_safetensors
from ..target import Chosen, Draft, Target

_TYPES = ("auto", "F32", "F16", "BF16")


@dataclass(frozen=True)
class _Head:
    """How the files are called, and the small ones by name."""

    kind: safetensors.FolderKind
    side: Mapping[str, bytes]


def choose(checkpoint: Checkpoint, options: Options, kind: safetensors.FolderKind = safetensors.MODEL) -> list[Draft]:
    """The tensors of ``checkpoint``, and all that lies beside them; ``kind``: a model, or an adapter.

    Raises
    ------
    UsageError : a GGUF source
    BadInput : a tensor that cannot be written there
    """
    if checkpoint.metadata is not None:
        raise UsageError(
            f"{checkpoint.path} is GGUF, whose tensors cannot be written to a safetensors folder",
            "Name the output something.gguf.",
        )
    refuse_unsaved(checkpoint.tensors, checkpoint.path)
    (wanted,) = options.types
    tensors = [Chosen(n, rows, *_type(checkpoint, n, rows, wanted)) for n, rows in checkpoint.tensors.items()]
    side = {n: data for n in checkpoint.side_names() if (data := checkpoint.side_bytes(n)) is not None}
    if checkpoint.config:  # single files merged into one have none, and an empty one would claim to be a model's
        side[kind.config] = _config(checkpoint, kind.config, wanted)
    named = checkpoint.config.get("architectures")
    arch = str(
        named[0] if isinstance(named, list) and named else checkpoint.config.get("peft_type", "unknown architecture")
    )
    return [Draft(wanted, arch, tensors, _Head(kind, side), {}, checkpoint.warnings)]


def lay_out(path: Path, draft: Draft, options: Options, job: str) -> Sequence[FileLayout]:
    """Shards, their index, and what lies beside them."""
    infos = [TensorInfo(t.name, t.rows.shape, t.type) for t in draft.tensors]
    limit = safetensors.MAX_SHARD_BYTES if options.max_shard_bytes is None else options.max_shard_bytes
    head = draft.head
    return safetensors.layout(path, infos, head.side, kind=head.kind, max_bytes=limit, job_key=job)


def _type(checkpoint: Checkpoint, name: str, rows: Rows, wanted: str) -> tuple[TensorType, str]:
    """The type of a tensor and why: floats become what was asked for, everything else is copied."""
    is_float = rows.dtype in FLOATS or rows.dtype.startswith("F8_")
    if wanted != "auto" and is_float:
        return TYPES[wanted], f"requested: {wanted}"
    # Some encodings do not say what they were made from; their rows are float32 then.
    if rows.dtype == "F32" and any(isinstance(each, (dequant.DecodedRows, SbsRows)) for each in walk(rows)):
        return TYPES[_own_type(checkpoint)], "decoded, in the type of the model"
    try:
        found = safetensors.stored_type(rows.dtype)
    except KeyError:
        raise BadInput(f"{checkpoint.path}: tensor {name!r} of type {rows.dtype} cannot be written") from None
    if rows.stored(0, 0) is None and found.name not in FLOATS:
        raise BadInput(
            f"{checkpoint.path}: tensor {name!r} of type {rows.dtype} can only be copied, but its bytes are not available"
        )
    return found, "as it is"


def _own_type(checkpoint: Checkpoint) -> str:
    """The type config.json names for the weights; F32 where it names none."""
    names = {torch: name for name, torch in safetensors.TORCH_NAMES.items() if name in _TYPES}
    for section in (checkpoint.config, *text_sections(checkpoint.config)):
        for key in ("dtype", "torch_dtype"):
            if (torch := str(section.get(key))) in names:
                return names[torch]
    return "F32"


def _config(checkpoint: Checkpoint, name: str, wanted: str) -> bytes:
    """The configuration, byte for byte where nothing about it changes."""
    config: dict[str, Any] = dict(checkpoint.config)
    if wanted != "auto" and name == safetensors.MODEL.config:
        key = "dtype" if "dtype" in config else "torch_dtype"
        config[key] = safetensors.TORCH_NAMES[wanted]
        for part, inner in config.items():
            if isinstance(inner, Mapping) and ("dtype" in inner or "torch_dtype" in inner):
                key = "dtype" if "dtype" in inner else "torch_dtype"
                config[part] = {**inner, key: safetensors.TORCH_NAMES[wanted]}
    stored = checkpoint.side_bytes(name)
    if stored is not None and checkpoint.json(name) == config:
        return stored
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


TARGET = Target(
    name="folder",
    title="a safetensors folder",
    choose=choose,
    lay_out=lay_out,
    job_of=job_of_safetensors,
    options=("max_shard_bytes", "lora"),
    types=_TYPES,
    as_saved=True,
)
#: the same for what ``extract-lora`` makes
ADAPTER = replace(TARGET, choose=partial(choose, kind=safetensors.ADAPTER))
