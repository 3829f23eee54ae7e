"""Models on the hub as inputs of a job: named, pinned to a commit, and opened by their heads, nothing else fetched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.transfer import Elsewhere, PartialDownload, Settings, Transfer
from ..engine.transfer.store import Store, writable_root
from ..file_names import HUGGING_FACE, PACK, SBS, TORCH, Layout, container_of
from ..sources import folder, gguf
from ..sources.checkpoint import Checkpoint, read_object
from ..sources.frame_cache import FrameCache
from ..sources.hub.model import KINDS, HubFile, HubModel, Reference
from ..sources.mapped import IoMode, MappedFile
from ..sources.sbs import open_sbs
from .transfer_notes import TransferNotes

if TYPE_CHECKING:
    from ..sources.hub.client import HubClient

EVICTING = Settings(span_bytes=32 << 20, ahead_bytes=512 << 20)
KEEPING = Settings()


class HubModels:
    """The models of the hub that one job opens; costs nothing until one is opened.

    Parameters
    ----------
    beside : folder to keep what is fetched in where the user's cache cannot be written
    evict : free space as soon as possible
    offline : never ask the network
    refresh : ask where branches are now instead of remembering
    pins : commits by reference, as an unfinished job has them; stronger than what is remembered
    reads : whether bytes are read here while they arrive
    gives_way : whether other jobs of this process may take what it fetches over

    Attributes
    ----------
    models : what was opened, by reference
    weights : their files of weights, in the order in which they are fetched
    notes : what fetching tells
    """

    def __init__(
        self,
        beside: Path,
        *,
        evict: bool = False,
        offline: bool = False,
        refresh: bool = False,
        pins: Mapping[str, str] | None = None,
        reads: bool = True,
        gives_way: bool = False,
    ) -> None:
        self._beside, self.evict = beside, evict
        self._offline, self._refresh, self._reads = offline, refresh, reads
        self._gives_way = gives_way
        self._pins = dict(pins or {})
        self._asked: set[HubFile] = set()
        self._is_open = False
        self.models: dict[str, HubModel] = {}
        self.weights: list[PartialDownload] = []
        self.notes = TransferNotes()

    def open(
        self,
        ref: Reference,
        io: IoMode = "mmap",
        weights: bool = True,
        layout: Layout = HUGGING_FACE,
        cache: FrameCache | None = None,
    ) -> Checkpoint:
        """The model that ``ref`` names, as a folder of it on disk would be opened; reads heads only.

        Parameters
        ----------
        cache : keeps what is unpacked of files that are kept packed

        Raises
        ------
        NetworkError, InputMissing, NoPermission : it cannot be had
        BadInput : what the hub lists is no model
        Locked : another process is fetching it
        """
        from ..sources.hub import choosing
        from ..sources.hub.files import HubFiles

        model = self.pin(ref)
        if ref.file:
            return self._open_file(ref, model, io, cache)
        side = self.partial(model, choosing.side_files(model, layout))
        self.download(side.values())
        path = self.folder(model)
        chosen, notes = list[HubFile](), list(model.warnings)
        if weights:
            named = self.named_weights(model, side, layout)
            chosen = choosing.weight_files(model, named, layout)
            speech = folder.speech_weights(read_object(side[layout.config].path)) if layout.config in side else ""
            chosen += [model.files[speech]] if speech in model.files else []
            is_whole, note = choosing.is_whole_meant(model, named, layout)
            notes += [note] if note else []
            if is_whole:
                side.pop(choosing.index_file(model, layout))
        packed = self._packed_files(chosen, path, io, cache)
        missing = self.partial(model, [f for f in chosen if f.path not in packed])
        partial = {**side, **missing}
        if any(container_of(name) is TORCH for name in missing):  # their headers lie all over the file
            self.download(missing.values())
        self.weights += missing.values()
        self.transfer.hurry_heads(list(missing.values()))
        listed = {name: model.files[name] for name in (*side, *(f.path for f in chosen))}
        found = folder.open_files(HubFiles(path, listed, partial, io, packed), weights, layout)
        paths: dict[str, Path | bytes] = {name: partial.path for name, partial in side.items()}
        return replace(found, side=paths, warnings=[*notes, *found.warnings])

    def packed(self, file: HubFile) -> Path | None:
        """Where ``file`` is kept packed; None where it is not."""
        from ..engine.transfer.replacing import other_form

        return other_form(self.root, file.repo.replace("/", "--"), file.key, PACK) if file.kind == "sha256" else None

    def _packed_files(
        self, wanted: Iterable[HubFile], folder: Path, io: IoMode, cache: FrameCache | None
    ) -> dict[str, MappedFile]:
        """Those of ``wanted`` that are kept packed, by name."""
        there = {f: place for f in wanted if (place := self.packed(f)) is not None}
        if not there:
            return {}
        from ..sources.hub.packed import PackedHubFile

        self._asked.update(there)
        cache = cache or FrameCache()
        return {f.path: PackedHubFile(place, folder / f.path, f, io, cache) for f, place in there.items()}

    def open_adapter(self, ref: Reference) -> Path:
        """The folder of the adapter that ``ref`` names, fetched whole: adapters are small, and needed all the time."""
        from ..sources.hub import choosing

        model = self.pin(ref)
        return self._whole(model, [*choosing.side_files(model), *choosing.weight_files(model)])

    def open_module(self, ref: Reference, path: str) -> Path:
        """The folder ``path`` of a module of the model that ``ref`` names, fetched whole."""
        from ..sources.hub import choosing

        model = self.pin(ref)
        return self._whole(model, choosing.module_files(model, path)) / path

    def _whole(self, model: HubModel, files: Iterable[HubFile]) -> Path:
        """The folder of ``model`` with these ``files`` whole and under their names."""
        wanted = self.partial(model, files)
        self.download(wanted.values())
        self.transfer.require_names(wanted.values())
        return self.folder(model)

    def pin(self, ref: Reference) -> HubModel:
        """The commit that ``ref`` means to this job."""
        from ..sources.hub.resolving import resolve

        if str(ref) not in self.models:
            commit = None if self._refresh else self._pins.get(str(ref))
            self.models[str(ref)] = resolve(
                replace(ref, revision=commit) if commit else ref,
                self._store,
                offline=self._offline,
                refresh=self._refresh,
            )
        return self.models[str(ref)]

    @property
    def revisions(self) -> dict[str, str]:
        """What is to be remembered of ``models`` with the job; becomes ``pins`` when it is resumed."""
        return {name: model.commit for name, model in self.models.items()}

    def folder(self, model: HubModel) -> Path:
        """Where the complete files of ``model`` are found by their names; it is called as the model is."""
        return self._store.folder(model.folder_name, f"{model.commit}/{model.name}")

    def partial(self, model: HubModel, wanted: Iterable[HubFile]) -> dict[str, PartialDownload]:
        """``wanted`` files of ``model``, whatever of them is here, by name."""
        from ..sources.hub.local import cached_file

        files_wanted = list(wanted)
        self._asked.update(files_wanted)
        commit = f"{model.commit}/{model.name}"
        found = {}
        for f in files_wanted:
            cached = cached_file(f)
            where = Elsewhere(cached.path, cached.is_trusted, f.kind in KINDS) if cached else None
            found[f.path] = self.transfer.add(model.folder_name, commit, f, where)
        # Before they are read: what is damaged can still be fetched again. In a store that cannot be written nothing can
        # be put on record either, so there that is left until something is made of them.
        self.check([a for a in found.values() if self.transfer.can_mend(a)])
        return found

    def check(self, partial: Iterable[PartialDownload], every: bool = False) -> None:
        """See ``Transfer.check``; what is damaged is fetched again unless the network may not be asked."""
        from ..sources.hub.resolving import is_offline

        mends = not (self._offline or is_offline())
        self.transfer.check(partial, every=every, mends=mends, looked=lambda n, path: self.notes.looked(n, path))

    def left_out(self) -> list[HubFile]:
        """What ``models`` hold beside what was asked for: the same weights in other forms, pictures, …; the largest first."""
        found = {f for model in self.models.values() for f in model.files.values() if not f.path.startswith(".")}
        return sorted(found - self._asked, key=lambda f: (-f.size, f.path))

    def download(self, partial: Iterable[PartialDownload]) -> None:
        """Fetch these files whole and check them."""
        wanted = list(partial)
        self.transfer.fetch(wanted)
        self.transfer.wait(wanted)

    @cached_property
    def transfer(self) -> Transfer:
        """The transfer of all files of this job."""
        self._is_open = True
        found = self._store.transfer(self._client, self.notes, keep=not self.evict, cached=self._reads)
        found.gives_way = self._gives_way
        return found

    @cached_property
    def _store(self) -> Store:
        root, note = writable_root(self._beside)
        if note:
            self.notes.message(note)
        return Store(root, EVICTING if self.evict else KEEPING)

    @cached_property
    def _client(self) -> HubClient:
        from ..sources.hub.client import HubClient

        return HubClient(offline=self._offline)

    def named_weights(
        self, model: HubModel, side: Mapping[str, PartialDownload], layout: Layout = HUGGING_FACE
    ) -> set[str]:
        """The files that the index of a sharded model names."""
        from ..sources.hub.choosing import index_file

        index = index_file(model, layout)
        if index not in side:
            return set()
        named = read_object(side[index].path).get("weight_map")
        return {name for name in named.values() if isinstance(name, str)} if isinstance(named, dict) else set()

    def _open_file(self, ref: Reference, model: HubModel, io: IoMode, cache: FrameCache | None) -> Checkpoint:
        from ..sources.hub import choosing
        from ..sources.hub.files import PartialFile

        chosen, path = choosing.one_file(model, ref.file), self.folder(model)
        packed = self._packed_files(chosen, path, io, cache)
        partial = self.partial(model, [f for f in chosen if f.path not in packed])
        self.weights += partial.values()
        self.transfer.hurry_heads(list(partial.values()))
        opens = open_sbs if container_of(ref.file) is SBS else gguf.open_gguf
        opened = opens(
            path / chosen[0].path,
            io,
            lambda place, mode: packed[name] if (name := place.relative_to(path).as_posix()) in packed
            else PartialFile(place, model.files[name], partial[name], mode),
        )  # fmt: skip
        return replace(opened, warnings=[*model.warnings, *opened.warnings])

    def start(self) -> None:
        """Fetch what was claimed of the weights.

        Raises
        ------
        Locked, WriteFailed
        """
        self.transfer.lock_to_read = True
        missing = self.missing_bytes()
        if missing:
            names = ", ".join(map(str, self.models.values()))
            self.notes.message(f"fetching {names}: {missing:,} bytes to download to {self.root}")
        self.transfer.start()

    @property
    def root(self) -> Path:
        """The folder that everything is kept in."""
        return self._store.root

    def missing_bytes(self) -> int:
        """Bytes of the weights that are still to be downloaded."""
        return self.transfer.missing_bytes(self.weights)

    def close(self) -> None:
        """End the transfer; what is durable stays. Readers that wait get Stopped."""
        if self._is_open:
            self.transfer.close()

    def was_amended(self) -> bool:
        """Whether bytes of any file had to be replaced after they may have been read."""
        return any(a.amended_ns for a in self.weights)
