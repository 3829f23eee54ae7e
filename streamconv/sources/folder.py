"""A Hugging Face checkpoint folder: config.json and one or many files of weights, with or without an index.

The files are of safetensors, or else of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..errors import BadInput, InputMissing, raise_exhausted
from ..file_names import (
    CONSOLIDATED,
    HUGGING_FACE,
    MISTRAL,
    MLX_ADAPTER,
    OF_FOLDERS,
    SAFETENSORS,
    TORCH,
    Container,
    Layout,
    fits,
    is_weights,
    part_names,
    part_of,
    plain_name,
)
from ..rows import Rows
from .checkpoint import JOB_KEY, Checkpoint, InputFile, read_object, refuse_mixture
from .frame_cache import FrameCache
from .implied_config import implied_config
from .known_layouts import instead, unfinished_download
from .local_files import open_file, stored_at
from .mapped import IoMode, MappedFile
from .mistral_params import read_params
from .naming import shown, shown_list
from .safetensors import read_safetensors
from .side_links import refuse_foreign
from .small_files import read_small
from .state_dicts import unwrapped
from .torch import read_torch

#: folder of a model beside a model of speech, which makes sound of its codes; its tensors' names begin with this
SPEECH = "speech_tokenizer"


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


#: how a file is read
READERS: Mapping[Container, Callable[[MappedFile], Shard]] = {
    SAFETENSORS: safetensors_shard, CONSOLIDATED: safetensors_shard, TORCH: torch_shard,
}  # fmt: skip
#: names of files that hold a model whole or in parts, in containers that are read and others
_MODELS = (
    *(c.pattern for c in (*OF_FOLDERS, CONSOLIDATED)), "consolidated*.pth", "tf_model*.h5", "flax_model*.msgpack",
)  # fmt: skip

#: weights of an adapter, which transformers puts on the model in whose folder they lie
_ADAPTERS = (*(each.adapter for each in OF_FOLDERS), MLX_ADAPTER)


def adapter_weights(names: Collection[str]) -> list[str]:
    """Which files of these ``names`` hold the weights of a LoRA adapter."""
    return sorted(name for name in names if plain_name(name) in _ADAPTERS)


def is_adapter(names: Collection[str], alone: bool = True) -> bool:
    """Whether files of these ``names`` are a LoRA adapter; ``alone``: and no model."""
    if "adapter_config.json" not in names or not adapter_weights(names):
        return False
    return not (alone and any(fits(name, _MODELS) for name in names))


class Files(Protocol):
    """The files of a checkpoint by their names, in a folder or on their way here."""

    @property
    def path(self) -> Path:
        """What messages call the folder."""

    def names(self) -> Collection[str]:
        """Names of the files that lie directly in it."""

    def has(self, name: str) -> bool:
        """Whether there is a file ``name``, which may lie in a folder of it."""

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
        """See ``Files``; with links that lead nowhere, so that opening one reports it; compressed files by their plain names."""
        return {plain_name(p.name) for p in self.path.iterdir()}

    def has(self, name: str) -> bool:
        """See ``Files``."""
        return stored_at(self.path / name).exists()

    def read_object(self, name: str) -> dict[str, Any]:
        """See ``Files``; an index may lie elsewhere with its weights, a configuration goes into outputs."""
        if not is_weights(name) and (self.path / name).exists():
            refuse_foreign(self.path, name)
        return read_object(self.path / name)

    def open(self, name: str) -> MappedFile:
        """See ``Files``."""
        return open_file(self.path / name, self._io, self._cache)


def open_folder(
    folder: Path,
    io: IoMode = "mmap",
    weights: bool = True,
    cache: FrameCache | None = None,
    layout: Layout = HUGGING_FACE,
) -> Checkpoint:
    """``open_files`` for a folder on disk."""
    return open_files(LocalFiles(folder, io, cache), weights, layout)


def snapshot(folder: Path) -> Path | None:
    """The snapshot that is meant by the folder ``models--ORG--NAME`` of huggingface_hub's cache; None for other folders.

    It is the one of ``main``, or the only one.

    Errors: InputMissing where neither is there.
    """
    if not (folder / "snapshots").is_dir() or (folder / "config.json").exists():
        return None
    there = sorted(p.name for p in (folder / "snapshots").iterdir() if p.is_dir())
    main = read_small(ref, 4096).decode(errors="replace").strip() if (ref := folder / "refs" / "main").is_file() else ""
    if main in there or len(there) == 1:
        return folder / "snapshots" / (main if main in there else there[0])
    raise InputMissing(
        f"{folder} is a folder of huggingface_hub's cache with {len(there)} snapshots, and refs/main names none of them",
        f"Give one of them: {folder / 'snapshots'}/{there[0]}." if there else "Download the model again.",
    )


def open_files(files: Files, weights: bool = True, layout: Layout = HUGGING_FACE) -> Checkpoint:
    """Open the checkpoint that ``files`` are; reads config.json, the index and the headers of all shards.

    In Mistral's own layout params.json stands for config.json, and is read as that (``mistral_params``).

    Tensors come file after file in the order of their names, and by name within a file. How the weights are encoded (plain,
    GPTQ, bitsandbytes, …) is not judged here. Without ``weights`` only config.json is read; they need not be there.

    Errors: InputMissing for an absent config.json or shard; BadInput for a file that is damaged, an index that contradicts
    the shards or leads out of the folder, and a tensor that two shards hold.
    """
    folder, present = files.path, files.names()
    if layout.config not in present:
        if weights and layout is HUGGING_FACE and (implied := _implied(files, present)) is not None:
            return implied
        hint = f"A checkpoint folder needs {layout.config} beside its weights."
        raise InputMissing(f"{folder} has no {layout.config}", _instead(folder, present, layout) or hint)
    config, notes = _config(files, layout)
    if not weights:
        return Checkpoint(folder, {}, config, (), warnings=notes, config_file=layout.config)
    found = [chosen for c in layout.containers if (chosen := _choose(files, present, c)) is not None]
    if not found:
        raise InputMissing(
            f"{folder} has no weights: neither {' nor '.join(c.pattern for c in layout.containers)}, nor an index of them",
            _instead(folder, present, layout),
        )
    # An index of files that are all gone tells of nothing that is here.
    chosen = next((each for each in found if each.here(present)), found[0])
    if chosen is not found[0]:
        chosen = replace(chosen, why=f"{found[0].container.index} names files that are missing")
    opened = _with_speech(files, _open_shards(files, present, chosen, config))
    told = [*notes, *opened.warnings, *_passed_over(folder, present, chosen)]
    return replace(opened, warnings=told, config_file=layout.config)


def _with_speech(files: Files, opened: Checkpoint) -> Checkpoint:
    """``opened`` with the tensors of the model in its folder ``SPEECH``, where it is one that speaks and they are there."""
    name = speech_weights(opened.config)
    if not name or not files.has(name):
        return opened
    shard = safetensors_shard(files.open(name))
    tensors = {**opened.tensors, **{f"{SPEECH}.{each}": rows for each, rows in shard.tensors.items()}}
    return replace(opened, tensors=tensors, inputs=(*opened.inputs, replace(shard.input, name=name)))


def speech_weights(config: Mapping[str, Any]) -> str:
    """The file of the model in the folder ``SPEECH``, "" where ``config`` is of one that does not speak."""
    return f"{SPEECH}/model.safetensors" if config.get("model_type") == "qwen3_tts" else ""


def _config(files: Files, layout: Layout) -> tuple[dict[str, Any], list[str]]:
    """What config.json says, or what it would say of params.json; and notes."""
    found = files.read_object(layout.config)
    return read_params(found, files.path / layout.config) if layout is MISTRAL else (found, [])


def _instead(folder: Path, present: Collection[str], layout: Layout) -> str:
    """What to do with a folder that is not of ``layout``."""
    if layout is MISTRAL and "config.json" in present:
        return "It is of the Hugging Face layout: leave --mistral-format out."
    return "" if layout is MISTRAL else instead(folder, present)


@dataclass(frozen=True)
class _Set:
    """Files that together hold the weights of a model.

    Attributes
    ----------
    index : tensor -> file, empty where there is none
    why : why these files, where there are others
    opened : those of ``names`` that were read in order to choose
    """

    container: Container
    names: list[str]
    index: Mapping[str, str] = field(default_factory=dict)
    why: str = ""
    opened: Mapping[str, Shard] = field(default_factory=dict)

    def here(self, present: Collection[str]) -> list[str]:
        """Which of them are in the folder."""
        return [name for name in self.names if name in present]


def _implied(files: Files, present: Collection[str]) -> Checkpoint | None:
    """The checkpoint of one file whose tensors say what config.json would; None where they do not."""
    names = [name for name in present if name.startswith("model") and name.endswith(".safetensors")]
    if len(names) != 1:
        return None
    try:
        opened = _open_shards(files, present, _Set(SAFETENSORS, names), {})
    except BadInput as e:
        raise_exhausted(e)
        return None
    config = implied_config(opened.tensors)
    return replace(opened, config=config) if config else None


def prefers_whole(present: Collection[str], named: Collection[str], whole: str) -> bool:
    """Whether the one file ``whole`` is meant and not the files that an index ``named``: transformers looks for it first."""
    return whole in present and whole not in named


def _choose(files: Files, present: Collection[str], container: Container) -> _Set | None:
    """The set of weights in ``container`` that is meant, None where there is none."""
    index = _read_index(files, container.index) if container.index in present else {}
    by_index = _Set(container, sorted(set(index.values())), index)
    if not index:
        return _without_index(files, present, container)
    if not prefers_whole(present, by_index.names, container.whole):
        return by_index
    if len(by_index.here(present)) < len(by_index.names):
        why = f"{container.index} names files that are missing"
        return _Set(container, [container.whole], why=why)
    try:
        shard = READERS[container](files.open(container.whole))
    except BadInput as e:
        raise_exhausted(e)
        return replace(by_index, why=f"{container.whole} cannot be read")
    lacks = index.keys() - shard.tensors.keys()
    if lacks:
        return replace(by_index, why=f"{container.whole} lacks {shown_list(lacks)}, which {container.index} lists")
    return _Set(container, [container.whole], why="transformers prefers it", opened={container.whole: shard})


def _without_index(files: Files, present: Collection[str], container: Container) -> _Set | None:
    """Files by the pattern of their names; where these are several sets, the one that is meant."""
    names, series = _series(present, container.pattern)
    if container.whole in names and len(names) > 1:
        opened = {name: READERS[container](files.open(name)) for name in names if name in present}
        whole = opened[container.whole].tensors.keys()
        is_again = any(whole & shard.tensors.keys() for name, shard in opened.items() if name != container.whole)
        if is_again or len(opened) < len(names):
            return _Set(container, [container.whole], why="transformers prefers it", opened=opened)
        return _Set(container, names, opened=opened)
    if len(series) > 1:
        complete = [each for each in series if set(each) <= set(present)]
        if len(complete) != 1:
            raise BadInput(
                f"{files.path} holds parts of several models: {shown_list([each[0] for each in series])} each begin one",
                "Keep the files of one, or give its index.",
            )
        return _Set(container, complete[0], why="the others are not complete")
    return _Set(container, names) if names else None


def _passed_over(folder: Path, present: Collection[str], chosen: _Set) -> Iterator[str]:
    """What to tell of files that hold weights too and are not read."""
    others = [n for n in present if n not in chosen.names and fits(n, _MODELS)]
    why = f" ({chosen.why})" if chosen.why else ""
    if others:
        yield f"{folder}: the weights are read from {shown_list(chosen.names)}{why}; {shown_list(others)} is ignored"
    adapters = [name for name in _ADAPTERS if name in present]
    if adapters and "adapter_config.json" in present:
        yield (
            f"{folder}: the weights are taken without the adapter beside them, {shown_list(adapters)}; a recipe with"
            f" model: {folder}+{folder} merges it"
        )
    elif chosen.why:
        yield f"{folder}: the weights are read from {shown_list(chosen.names)}{why}"


def open_index(path: Path, io: IoMode = "mmap", cache: FrameCache | None = None) -> Checkpoint:
    """Open the files that the index at ``path`` lists, with the config.json beside it if there is one.

    Errors: as ``open_folder``; BadInput also for an index of another kind.
    """
    files = LocalFiles(path.parent, io, cache)
    for container in OF_FOLDERS:
        if path.name.endswith(container.index.removeprefix(container.stem)):
            present = files.names()
            config = files.read_object("config.json") if "config.json" in present else {}
            index = _read_index(files, path.name)
            return _open_shards(files, present, _Set(container, sorted(set(index.values())), index), config, path)
    raise BadInput(f"{path} is not a known kind of index", f"Known: {' and '.join(c.index for c in OF_FOLDERS)}.")


def _open_shards(
    files: Files, present: Collection[str], chosen: _Set, config: dict[str, Any], path: Path | None = None
) -> Checkpoint:
    """The checkpoint in the files ``chosen``; ``path`` is what the user named, by default the folder."""
    folder, index = files.path, chosen.index
    _check_present(folder, present, chosen.names)
    shards = [chosen.opened.get(name) or READERS[chosen.container](files.open(name)) for name in chosen.names]
    refuse_mixture({shard.path: shard.job for shard in shards})
    warnings = [warning for shard in shards for warning in shard.warnings]
    tensors = _join(shards, index, warnings)
    if index:
        _check_index(folder / chosen.container.index, index, tensors, warnings)
    return Checkpoint(
        path=path or folder,
        tensors=unwrapped(tensors, path or folder, warnings),
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
            raise BadInput(f"{path}: weight_map maps {shown(tensor)} to something that is not a file name")
        # Refused by its spelling, before anything is opened; backslashes separate on other systems.
        if file in ("", ".", "..") or any(c in file for c in "/\\\0"):
            raise BadInput(f"{path}: weight_map path {shown(file)} of tensor {shown(tensor)} leads outside the folder")
    return {tensor: plain_name(file) for tensor, file in index.items()}


def _series(present: Collection[str], pattern: str) -> tuple[list[str], list[list[str]]]:
    """Those of ``present`` that fit ``pattern``, sorted, with the gaps in numbered series filled; and these series."""
    names = {name for name in present if fits(name, (pattern,))}
    series = {(part.stem, part.n_parts, part.ending) for name in names if (part := part_of(name))}
    filled = [part_names(*each) for each in sorted(series)]
    return sorted(names.union(*filled)), filled


def _check_present(folder: Path, present: Collection[str], names: list[str]) -> None:
    absent = [name for name in names if name not in present]
    if absent:
        others = [n for n in present if n not in names and fits(n, _MODELS)]
        beside = (
            f" Or, if {shown_list(others)} is the model, remove the index and what is left of its files."
            if others
            else ""
        )
        raise InputMissing(
            f"{folder}: {len(absent)} of {len(names)} weight files not found: {shown_list(absent)}",
            unfinished_download(folder) or f"Fetch what is missing, then run the same command again.{beside}",
        )


def _join(shards: list[Shard], index: Mapping[str, str], warnings: list[str]) -> dict[str, Rows]:
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


def _check_index(path: Path, index: Mapping[str, str], tensors: dict[str, Rows], warnings: list[str]) -> None:
    """Every promised tensor is there; one that was not promised is only odd."""
    lost = index.keys() - tensors.keys()
    if lost:
        files = shown_list({index[name] for name in lost})
        raise BadInput(
            f"{path} promises {shown_list(lost)}, missing in {files}",
            "Fetch what it names again; if the publisher's files lack it too and the model does without, remove it from the index.",
        )
    extra = tensors.keys() - index.keys()
    if extra:
        warnings.append(f"{path.name} does not list {shown_list(extra)}")
