"""A Hugging Face checkpoint folder: config.json and one or many files of weights, with or without an index.

The files are of safetensors, or else of torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from ..errors import BadInput, InputMissing
from ..rows import Rows
from .checkpoint import JOB_KEY, Checkpoint, InputFile, is_weights, read_object, refuse_mixture
from .frame_cache import FrameCache
from .mapped import IoMode, MappedFile
from .naming import plain_name, shown, shown_list
from .safetensors import read_safetensors
from .side_links import refuse_foreign
from .torch import read_torch
from .zstd import open_file

INDEX = "model.safetensors.index.json"
TORCH_INDEX = "pytorch_model.bin.index.json"
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ending>\.[a-z]+)")


@dataclass(frozen=True)
class Shard:
    """One file of weights, read.

    Attributes
    ----------
    tensors : name -> rows, sorted by name
    input : the file's identity
    job : what it says of the job that made it, "" where nothing
    """

    path: Path
    tensors: Mapping[str, Rows]
    input: InputFile
    warnings: list[str]
    job: str = ""


def safetensors_shard(file: MappedFile) -> Shard:
    """See ``read_safetensors``."""
    found = read_safetensors(file)
    return Shard(file.path, found.tensors, file.describe(found.data_start), [], found.metadata.get(JOB_KEY, ""))


def torch_shard(file: MappedFile) -> Shard:
    """See ``read_torch``."""
    found = read_torch(file)
    return Shard(file.path, found.tensors, found.describe(), found.warnings)


@dataclass(frozen=True)
class _Container:
    """How weights lie in a folder: the name of the index, the files without one, and how a file is read."""

    index: str
    pattern: str
    read: Callable[[MappedFile], Shard]


#: the first that is there is taken; many folders hold the same weights twice
_CONTAINERS = (
    _Container(INDEX, "model*.safetensors", safetensors_shard),
    _Container(TORCH_INDEX, "pytorch_model*.bin", torch_shard),
)


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

    def __init__(self, path: Path, io: IoMode, cache: FrameCache | None = None) -> None:
        self.path = path
        self._io, self._cache = io, cache or FrameCache()

    def names(self) -> Collection[str]:
        """See ``Files``; links that lead nowhere count as absent, compressed files have the names of the plain ones."""
        return {plain_name(p.name) for p in self.path.iterdir() if p.exists()}

    def read_object(self, name: str) -> dict[str, Any]:
        """See ``Files``; an index may lie elsewhere with its weights, a configuration goes into outputs."""
        if not is_weights(name) and (self.path / name).exists():
            refuse_foreign(self.path, name)
        return read_object(self.path / name)

    def open(self, name: str) -> MappedFile:
        """See ``Files``."""
        return open_file(self.path / name, self._io, self._cache)


def open_folder(folder: Path, io: IoMode = "mmap", weights: bool = True, cache: FrameCache | None = None) -> Checkpoint:
    """``open_files`` for a folder on disk."""
    return open_files(LocalFiles(folder, io, cache), weights)


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
        hint = "A checkpoint folder needs config.json beside its weights."
        if "adapter_config.json" in files.names():
            hint = "This is a LoRA adapter: merge it into its model with a recipe that names model: MODEL+ADAPTER."
        raise InputMissing(f"{folder} has no config.json", _meta_hint(files.names()) or hint) from None
    if not weights:
        return Checkpoint(path=folder, tensors={}, config=config, inputs=())
    present = files.names()
    for container in _CONTAINERS:
        index = _read_index(files, container.index) if container.index in present else {}
        names = sorted(set(index.values())) if index else _shard_names(present, container.pattern)
        if names:
            return _open_shards(files, present, names, container, index, config)
    raise InputMissing(
        f"{folder} has no weights: neither model*.safetensors nor pytorch_model*.bin, nor an index of them",
        _meta_hint(present),
    )


def _meta_hint(present: Collection[str]) -> str:
    """What to do with the files that Meta released, "" when they are not here."""
    found = any(fnmatchcase(name, "consolidated*.pth") for name in present)
    hint = "consolidated*.pth are slices of tensors in Meta's own layout; fetch the Hugging Face form of the model."
    return hint if found else ""


def refuse_meta(path: Path) -> None:
    """BadInput for a file that has the name of Meta's releases: names and order of rows are not those of Hugging Face."""
    if hint := _meta_hint([path.name]):
        raise BadInput(f"{path} has the name of a part in Meta's own layout, which is not read", hint)


def open_index(path: Path, io: IoMode = "mmap", cache: FrameCache | None = None) -> Checkpoint:
    """Open the files that the index at ``path`` lists, with the config.json beside it if there is one.

    Errors: as ``open_folder``; BadInput also for an index of another kind.
    """
    files = LocalFiles(path.parent, io, cache)
    for container in _CONTAINERS:
        if path.name.endswith(container.index.removeprefix("model").removeprefix("pytorch_model")):
            present = files.names()
            config = files.read_object("config.json") if "config.json" in present else {}
            index = _read_index(files, path.name)
            return _open_shards(files, present, sorted(set(index.values())), container, index, config, path)
    raise BadInput(f"{path} is an index of no known kind", f"Known are {INDEX} and {TORCH_INDEX}.")


def _open_shards(
    files: Files,
    present: Collection[str],
    names: list[str],
    container: _Container,
    index: dict[str, str],
    config: dict[str, Any],
    path: Path | None = None,
) -> Checkpoint:
    """The checkpoint in the files ``names``; ``path`` is what the user named, by default the folder."""
    folder = files.path
    _check_present(folder, present, names)
    shards = [container.read(files.open(name)) for name in names]
    refuse_mixture({shard.path: shard.job for shard in shards})
    warnings = [warning for shard in shards for warning in shard.warnings]
    tensors = _join(shards, index, warnings)
    if index:
        _check_index(folder / container.index, index, tensors, warnings)
    return Checkpoint(
        path=path or folder,
        tensors=tensors,
        config=config,
        inputs=tuple(shard.input for shard in shards),
        warnings=warnings,
    )


def _read_index(files: Files, name: str) -> dict[str, str]:
    """Tensor name -> file name. File names are plain names inside the folder."""
    path = files.path / name
    index = files.read_object(name).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise BadInput(f"{path} has no weight_map")
    for tensor, file in index.items():
        if not isinstance(file, str):
            raise BadInput(f"{path}: weight_map gives {shown(tensor)} something that is not a file name")
        # Refused by its spelling, before anything is opened; backslashes separate on other systems.
        if file in ("", ".", "..") or any(c in file for c in "/\\\0"):
            raise BadInput(f"{path}: weight_map path {shown(file)} of tensor {shown(tensor)} leads outside the folder")
    return {tensor: plain_name(file) for tensor, file in index.items()}


def _shard_names(present: Collection[str], pattern: str) -> list[str]:
    """Those of ``present`` that fit ``pattern``, sorted, with the gaps in a numbered series filled."""
    names = {name for name in present if fnmatchcase(name, pattern)}
    for name in list(names):
        found = _NUMBERED.fullmatch(name)
        if found:
            stem, count, ending = found["stem"], int(found["count"]), found["ending"]
            names.update(f"{stem}-{number:05d}-of-{count:05d}{ending}" for number in range(1, count + 1))
    return sorted(names)


def _check_present(folder: Path, present: Collection[str], names: list[str]) -> None:
    absent = [name for name in names if name not in present]
    if absent:
        raise InputMissing(
            f"{folder}: {len(absent)} of {len(names)} weight files not found: {shown_list(absent)}",
            "Fetch what is missing, then run the same command again.",
        )


def _join(shards: list[Shard], index: dict[str, str], warnings: list[str]) -> dict[str, Rows]:
    """All tensors of all shards. Where two shards hold a name, the index decides; without its word it is an error."""
    tensors: dict[str, Rows] = {}
    holder: dict[str, str] = {}
    for shard in shards:
        file = plain_name(shard.path.name)
        for name, rows in shard.tensors.items():
            if name in tensors:
                if index.get(name) not in (file, holder[name]):
                    raise BadInput(f"{shard.path}: duplicate tensor {shown(name)}, {holder[name]} holds it too")
                warnings.append(f"{holder[name]} and {file} both hold {shown(name)}; the index names {index[name]}")
                if index[name] != file:
                    continue
                del tensors[name]
            tensors[name] = rows
            holder[name] = file
    return tensors


def _check_index(path: Path, index: dict[str, str], tensors: dict[str, Rows], warnings: list[str]) -> None:
    """Every promised tensor is there; one that was not promised is only odd."""
    lost = index.keys() - tensors.keys()
    if lost:
        files = shown_list({index[name] for name in lost})
        raise BadInput(f"{path} promises {shown_list(lost)}, missing in {files}")
    extra = tensors.keys() - index.keys()
    if extra:
        warnings.append(f"{path.name} does not list {shown_list(extra)}")
