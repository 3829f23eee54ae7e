"""A Hugging Face folder: safetensors shards, their index, config.json and the side files.

A shard is an 8-byte header length, a JSON header padded with spaces to a multiple of 8, and the tensors' bytes one after
the other. Source: the format's description in the safetensors repository; names of shards and index as transformers'
``save_pretrained``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import NoResources, StreamconvError, raise_exhausted
from ..file_names import SAFETENSORS, part_names
from ..quant.types import TYPES, TensorType
from .layout import FileLayout, TensorInfo, split

#: what ``save_pretrained`` uses
MAX_SHARD_BYTES = 5_000_000_000
#: spellings of the types in config.json
TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
#: types that only this container has -> how many numbers lie in how many bytes
_OTHER = {
    **dict.fromkeys(("BOOL", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), (1, 1)),
    "U16": (1, 2), "U32": (1, 4), "U64": (1, 8), "C64": (1, 8), "F4": (2, 1), "F6_E2M3": (4, 3), "F6_E3M2": (4, 3),
}  # fmt: skip


@dataclass(frozen=True)
class FolderKind:
    """How the files of a folder are called.

    Attributes
    ----------
    config : the configuration
    weights : the one file of weights, without its ending
    splits : whether weights may be in several files
    """

    config: str
    weights: str
    splits: bool


MODEL = FolderKind("config.json", SAFETENSORS.stem, True)
ADAPTER = FolderKind("adapter_config.json", "adapter_model", False)


def stored_type(dtype: str) -> TensorType:
    """The type as which a tensor of ``dtype`` is copied; KeyError for one that is not of this container."""
    return TYPES[dtype] if dtype in TYPES else TensorType(dtype, -1, *_OTHER[dtype])


def layout(
    folder: Path,
    tensors: Sequence[TensorInfo],
    side: Mapping[str, bytes],
    *,
    kind: FolderKind = MODEL,
    max_bytes: int = MAX_SHARD_BYTES,
    job_key: str = "",
) -> list[FileLayout]:
    """Lay out the files of a folder.

    Parameters
    ----------
    folder : final name
    tensors : of types of this container
    side : the configuration and all other small files by name
    max_bytes : limit of a shard; a larger tensor gets one of its own
    job_key : identifies the job, in the free text of every shard
    """
    cut, ending = split(tensors, max_bytes if kind.splits else 0), SAFETENSORS.endings[0]
    names = part_names(kind.weights, len(cut), ending) if len(cut) > 1 else [kind.weights + ending]
    shards = dict(zip(names, cut, strict=True))
    files = [_shard(folder / name, tensors, numbers, job_key) for name, numbers in shards.items()]
    small = dict(side)
    if len(shards) > 1:
        small[SAFETENSORS.index] = _index(tensors, shards)
    return files + [FileLayout(folder / name, data, len(data), ()) for name, data in sorted(small.items())]


def _shard(path: Path, tensors: Sequence[TensorInfo], numbers: Sequence[int], job_key: str) -> FileLayout:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt", "streamconv.job": job_key}}
    places, at = [], 0
    for n in numbers:
        t = tensors[n]
        entries[t.name] = {"dtype": t.type.name, "shape": list(t.shape), "data_offsets": [at, at + t.n_bytes]}
        places.append((n, at))
        at += t.n_bytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    at_offsets = [(n, len(header) + offset) for n, offset in places]
    return FileLayout(
        path, header, len(header) + at, at_offsets, partial(_accept, [tensors[n] for n in numbers], job_key)
    )


def _accept(tensors: Sequence[TensorInfo], job_key: str, path: Path) -> None:
    """Open a finished shard with the library that all others read it with, and compare what that finds.

    Raises
    ------
    StreamconvError : it refuses the file, or finds other tensors
    """
    hint = "No file was renamed to its final name. This is a bug in streamconv; please report it."
    try:
        with safe_open(path, "numpy") as shard:
            slices = {name: shard.get_slice(name) for name in shard.keys()}  # noqa: SIM118 - no mapping
            found = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
            job = (shard.metadata() or {}).get("streamconv.job")
    except (SafetensorError, OSError) as e:
        raise_exhausted(e)
        if "os error 12" in str(e):
            raise NoResources(
                f"{path}: the safetensors library cannot map it: {e}", "Allow more memory (ulimit -v)."
            ) from e
        raise StreamconvError(f"{path}: the safetensors library refuses it: {e}", hint) from e
    planned = {t.name: (t.shape, t.type.name) for t in tensors}
    if found != planned or job != job_key:
        odd = sorted(name for name in {*found, *planned} if found.get(name) != planned.get(name))
        raise StreamconvError(f"{path}: the safetensors library finds other tensors than were written: {odd[:3]}", hint)


def _index(tensors: Sequence[TensorInfo], shards: Mapping[str, Sequence[int]]) -> bytes:
    total = sum(t.n_bytes for t in tensors)
    where = {tensors[n].name: name for name, numbers in shards.items() for n in numbers}
    record = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()
