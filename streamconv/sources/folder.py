"""A Hugging Face checkpoint folder: config.json and one or many safetensors files, with or without an index."""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from ..errors import BadInput, InputMissing
from ..rows import RowSource
from .checkpoint import Checkpoint, read_object
from .mapped import IoMode, MappedFile
from .naming import shown, shown_list
from .safetensors import SafetensorsFile, read_safetensors

INDEX = "model.safetensors.index.json"
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


class Files(Protocol):
    """The files of a checkpoint by their names, in a folder or on their way here."""

    @property
    def path(self) -> Path:
        """What messages call the folder."""

    def names(self) -> Collection[str]:
        """Names of the files that lie directly in it."""

    def read_object(self, name: str) -> dict[str, Any]:
        """The JSON object in the file ``name``; InputMissing when it is not there."""

    def open(self, name: str) -> MappedFile:
        """The file ``name``."""


class LocalFiles:
    """A folder on disk."""

    def __init__(self, path: Path, io: IoMode) -> None:
        self.path = path
        self._io = io

    def names(self) -> Collection[str]:
        """See ``Files``; links that lead nowhere count as absent."""
        return {p.name for p in self.path.iterdir() if p.exists()}

    def read_object(self, name: str) -> dict[str, Any]:
        """See ``Files``."""
        return read_object(self.path / name)

    def open(self, name: str) -> MappedFile:
        """See ``Files``."""
        return MappedFile(self.path / name, self._io)


def open_folder(folder: Path, io: IoMode = "mmap", weights: bool = True) -> Checkpoint:
    """``open_files`` for a folder on disk."""
    return open_files(LocalFiles(folder, io), weights)


def open_files(files: Files, weights: bool = True) -> Checkpoint:
    """Open the checkpoint that ``files`` are; reads config.json, the index and the headers of all shards.

    Tensors come file after file in the order of their names, and by name within a file. How the weights are encoded (plain,
    GPTQ, bitsandbytes, …) is not judged here. Without ``weights`` only config.json is read; they need not be there.

    Errors: InputMissing for an absent config.json or shard; BadInput for a file that is damaged, an index that contradicts
    the shards or leads out of the folder, and a tensor that two shards hold.
    """
    folder = files.path
    try:
        config = files.read_object("config.json")
    except InputMissing:
        raise InputMissing(
            f"{folder} has no config.json", "A checkpoint folder needs config.json beside its weights."
        ) from None
    if not weights:
        return Checkpoint(path=folder, tensors={}, config=config, inputs=())
    present = files.names()
    index = _read_index(files) if INDEX in present else {}
    names = sorted(set(index.values())) if index else _shard_names(present)
    if not names:
        return _without_safetensors(folder, present, config)
    _check_present(folder, present, names)
    shards = [read_safetensors(files.open(name)) for name in names]
    warnings: list[str] = []
    tensors = _join(shards, index, warnings)
    if index:
        _check_index(folder, index, tensors, warnings)
    return Checkpoint(
        path=folder,
        tensors=tensors,
        config=config,
        inputs=tuple(shard.file.describe(shard.data_start) for shard in shards),
        warnings=warnings,
    )


def _read_index(files: Files) -> dict[str, str]:
    """Tensor name -> file name. File names are plain names inside the folder."""
    path = files.path / INDEX
    index = files.read_object(INDEX).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise BadInput(f"{path} has no weight_map")
    for name, file in index.items():
        if not isinstance(file, str):
            raise BadInput(f"{path}: weight_map gives {shown(name)} something that is not a file name")
        # Refused by its spelling, before anything is opened; backslashes separate on other systems.
        if file in ("", ".", "..") or any(c in file for c in "/\\\0"):
            raise BadInput(f"{path}: weight_map path {shown(file)} of tensor {shown(name)} leads outside the folder")
    return index


def _shard_names(present: Collection[str]) -> list[str]:
    """``model*.safetensors`` among ``present``, sorted, with the gaps in a numbered series filled."""
    names = {name for name in present if fnmatchcase(name, "model*.safetensors")}
    for name in list(names):
        found = _NUMBERED.fullmatch(name)
        if found:
            stem, count = found["stem"], int(found["count"])
            names.update(f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1))
    return sorted(names)


def _check_present(folder: Path, present: Collection[str], names: list[str]) -> None:
    absent = [name for name in names if name not in present]
    if absent:
        raise InputMissing(
            f"{folder}: {len(absent)} of {len(names)} weight files not found: {shown_list(absent)}",
            "Fetch what is missing, then run the same command again.",
        )


def _without_safetensors(folder: Path, present: Collection[str], config: dict[str, Any]) -> Checkpoint:
    """A folder whose weights are in another container, which this module leaves to others."""
    pickles = sorted(name for name in present if fnmatchcase(name, "pytorch_model*.bin"))
    if not pickles:
        raise InputMissing(f"{folder} has no weights: neither model*.safetensors nor {INDEX}")
    return Checkpoint(
        path=folder,
        tensors={},
        config=config,
        inputs=(),
        warnings=[f"no safetensors here, only {shown_list(pickles)}"],
    )


def _join(shards: list[SafetensorsFile], index: dict[str, str], warnings: list[str]) -> dict[str, RowSource]:
    """All tensors of all shards. Where two shards hold a name, the index decides; without its word it is an error."""
    tensors: dict[str, RowSource] = {}
    holder: dict[str, str] = {}
    for shard in shards:
        file = shard.file.path.name
        for name, rows in shard.tensors.items():
            if name in tensors:
                if index.get(name) not in (file, holder[name]):
                    raise BadInput(f"{shard.file.path}: duplicate tensor {shown(name)}, {holder[name]} holds it too")
                warnings.append(f"{holder[name]} and {file} both hold {shown(name)}; the index names {index[name]}")
                if index[name] != file:
                    continue
                del tensors[name]
            tensors[name] = rows
            holder[name] = file
    return tensors


def _check_index(folder: Path, index: dict[str, str], tensors: dict[str, RowSource], warnings: list[str]) -> None:
    """Every promised tensor is there; one that was not promised is only odd."""
    lost = index.keys() - tensors.keys()
    if lost:
        files = shown_list({index[name] for name in lost})
        raise BadInput(f"{folder}: {INDEX} promises {shown_list(lost)}, missing in {files}")
    extra = tensors.keys() - index.keys()
    if extra:
        warnings.append(f"{INDEX} does not list {shown_list(extra)}")
