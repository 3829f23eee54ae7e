"""Where weights are stored. ``open_checkpoint`` opens any of it."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..errors import BadInput, absent, unreadable
from ..file_names import ENDINGS, GGUF, HUGGING_FACE, PACKABLE, PACKED, SBS, Layout, container_of
from .checkpoint import Checkpoint, InputFile
from .folder import READERS, LocalFiles, Shard, adapter_weights, is_adapter, open_folder, open_index, snapshot
from .frame_cache import FrameCache
from .gguf import GgufFile, open_gguf, read_gguf, read_splits
from .known_layouts import refuse_part
from .local_files import open_file, stored_at, twice_there
from .mapped import IoMode, MappedFile
from .sbs import open_sbs
from .state_dicts import unwrapped

__all__ = [
    "Checkpoint",
    "FrameCache",
    "GgufFile",
    "InputFile",
    "IoMode",
    "MappedFile",
    "adapter_weights",
    "is_adapter",
    "open_checkpoint",
    "read_gguf",
    "read_splits",
]


#: what messages list
_COMPRESSED = [ending + PACKED for ending in PACKABLE]
_KNOWN = ", ".join((*ENDINGS, *_COMPRESSED))
_HINT = f"Give a checkpoint folder, a file ({_KNOWN}), a merge recipe (.yml), or org/model on the hub."


def open_checkpoint(
    path: str | os.PathLike[str],
    io: IoMode = "mmap",
    weights: bool = True,
    cache: FrameCache | None = None,
    layout: Layout = HUGGING_FACE,
) -> Checkpoint:
    """Open a checkpoint folder or its index, a single file of safetensors or torch, a ``.gguf`` or a ``.sbs`` file.

    Of a split ``.gguf`` model it is the first file; of a folder ``models--ORG--NAME`` of huggingface_hub's cache the snapshot
    of ``main`` is opened. Files of safetensors and GGUF may be compressed with Zstandard, and are found by their plain names
    too.

    Those that ``streamconv pack`` made likewise.

    Reads headers only. ``io="pread"`` copies instead of mapping, for storage whose errors should not end the process.
    Without ``weights`` a folder may hold a configuration and a tokenizer only. ``cache`` keeps what is decompressed. Another
    ``layout`` than the usual one has folders only.

    Errors: InputMissing, NoPermission, BadInput; see the opener of each kind.
    """
    try:
        path = stored_at(Path(path))
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as e:
        raise unreadable(path, e) from None
    except ValueError as e:
        raise BadInput(f"{str(path)!r} cannot be a path: {e}") from None
    if not exists:
        raise absent(path, _HINT)
    cache = cache or FrameCache()
    if layout is not HUGGING_FACE and not is_folder and container_of(path.name) is not GGUF:
        raise BadInput(f"{path} is a file: --mistral-format needs the folder with params.json", f"Give {path.parent}.")
    cached = snapshot(path) if is_folder else None
    found = open_folder(cached or path, io, weights, cache, layout) if is_folder else _open_file(path, io, cache)
    if cached is not None:
        found = replace(found, name=path.resolve().name.removeprefix("models--").replace("--", "/"))
    found.warnings.extend(note for file in found.inputs if (note := twice_there(file.path)))
    if found.metadata is None:
        found.note_links()
    return found


def _open_file(path: Path, io: IoMode, cache: FrameCache) -> Checkpoint:
    container = container_of(path.name)
    if path.name.endswith(".index.json"):
        return open_index(path, io, cache)
    refuse_part(path)
    if container is GGUF:
        return open_gguf(path, io, partial(open_file, cache=cache))
    if container is SBS:
        return open_sbs(path, io)
    if container is not None:
        return _single(READERS[container](open_file(path, io, cache)))
    if path.suffix == PACKED:
        raise BadInput(
            f"{path}: of compressed files only {' and '.join(_COMPRESSED)} are read", "Decompress it: zstd -d"
        )
    raise BadInput(f"{path}: the ending {path.suffix!r} is not that of a known format", f"Known: {_KNOWN}.")


def _single(shard: Shard) -> Checkpoint:
    """One file of weights, with the config.json beside it if there is one."""
    beside = LocalFiles(shard.path.parent, "mmap")
    config = beside.read_object("config.json") if os.path.lexists(beside.path / "config.json") else {}
    warnings = list(shard.warnings)
    return Checkpoint(
        path=shard.path,
        tensors=unwrapped(shard.tensors, shard.path, warnings) if config else dict(shard.tensors),
        config=config,
        inputs=(shard.input,),
        warnings=warnings,
    )
