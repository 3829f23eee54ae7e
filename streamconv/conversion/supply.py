"""Models on the hub as inputs of a job: named, their headers read, and downloaded while the job converts what has arrived.

    prepare     Supply.open(reference): pin the commit, fetch the side files and the heads of the weights, nothing else
    execute     begin(chunks to make) ─► the transfer fetches in their order; readers wait for the bytes they touch
                committed(chunks)     ─► with --evict, ranges that are no longer needed are punched out
                settle()              ─► before the output gets its name: every digest was right

Nothing here knows what a chunk is made of: which bytes it needs is what its row sources say (``Rows.spans``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine import files
from ..engine.plan import Chunk, Plan
from ..engine.transfer import Arriving, Elsewhere, Settings, Transfer
from ..engine.transfer.owned import nearest_folder
from ..engine.transfer.store import Store, writable_root
from ..errors import WriteFailed
from ..rows import Span
from ..sources import FrameCache, folder, gguf
from ..sources.checkpoint import Checkpoint, read_object
from ..sources.hub.model import KINDS, HubFile, HubModel, Reference
from ..sources.mapped import IoMode

if TYPE_CHECKING:
    from ..sources.hub import files as hub_files
    from ..sources.hub.client import HubClient

    #: file, offset and length
    Range = tuple[hub_files.Arriving, int, int]

MIB = 1 << 20
#: room that must stay on a disk beyond what is planned: for indexes, logs and whatever else writes there meanwhile
_RESERVE_BYTES = 64 * MIB
#: With --evict: bytes that may be fetched before they are requested, and those of chunks that are not committed yet.
_AHEAD_BYTES, _OPEN_BYTES = 512 * MIB, 512 * MIB
_EVICTING = Settings(span_bytes=32 * MIB, ahead_bytes=_AHEAD_BYTES)
_KEEPING = Settings()

Tell = Callable[[str], None]


class Supply:
    """The hub as one job sees it; costs nothing until a model is opened.

    Parameters
    ----------
    beside : folder to keep what is fetched in where the user's cache cannot be written
    evict : free space as soon as possible
    offline : never ask the network
    refresh : ask where branches are now instead of remembering
    pins : commits by reference, as an unfinished job has them; stronger than what is remembered
    reads : whether bytes are read here while they arrive
    gives_way : whether other jobs of this process may take what it fetches over
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
        self._beside = beside
        self._evict, self._offline, self._refresh, self._reads = evict, offline, refresh, reads
        self._gives_way = gives_way
        self._pins = dict(pins or {})
        self._told: list[str] = []
        self._tell: Tell = self._told.append
        self._came: Callable[[int, str], None] = lambda n, path: None
        self._spans: dict[int, Sequence[Range]] = {}
        self._weights: list[Arriving] = []
        self._asked: set[HubFile] = set()
        self._is_open = False
        #: told of bytes of the store that are read again, and the name of the file; may raise to end it
        self.looked: Callable[[int, str], None] = lambda n, path: None
        #: what was opened, by reference
        self.models: dict[str, HubModel] = {}
        #: files and folders of this machine that were opened
        self.roots: list[Path] = []
        #: what is decompressed of compressed files of this machine; None before one was looked for
        self.cache: FrameCache | None = None

    # Opening, while a job is planned.

    def open(self, ref: Reference, io: IoMode = "mmap", weights: bool = True) -> Checkpoint:
        """The model that ``ref`` names, as a folder of it on disk would be opened; reads heads only.

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
            return self._open_file(ref, model, io)
        side = self.arriving(model, choosing.side_files(model))
        self.bring(side.values())
        path = self.folder(model)
        chosen, notes = list[HubFile](), list(model.warnings)
        if weights:
            named = self.named_weights(model, side)
            chosen = choosing.weight_files(model, named)
            is_whole, note = choosing.is_whole_meant(model, named)
            notes += [note] if note else []
            if is_whole:
                side.pop(choosing.index_file(model))
        arriving = {**side, **self.arriving(model, chosen)}
        if any(f.path.endswith(".bin") for f in chosen):  # their headers lie all over the file
            self.bring(arriving[f.path] for f in chosen)
        self._weights += [arriving[f.path] for f in chosen]
        self._fetch_heads([arriving[f.path] for f in chosen])
        listed = {name: model.files[name] for name in arriving}
        found = folder.open_files(HubFiles(path, listed, arriving, io), weights)
        return replace(found, side=_paths(side), warnings=[*notes, *found.warnings])

    def open_adapter(self, ref: Reference) -> Path:
        """The folder of the adapter that ``ref`` names, fetched whole: adapters are small, and needed all the time."""
        from ..sources.hub import choosing

        model = self.pin(ref)
        wanted = self.arriving(model, [*choosing.side_files(model), *choosing.weight_files(model)])
        self.bring(wanted.values())
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

    def arriving(self, model: HubModel, wanted: Iterable[HubFile]) -> dict[str, Arriving]:
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

    def check(self, arriving: Iterable[Arriving], every: bool = False) -> None:
        """See ``Transfer.check``; what is damaged is fetched again unless the network may not be asked."""
        from ..sources.hub.resolving import is_offline

        mends = not (self._offline or is_offline())
        self.transfer.check(arriving, every=every, mends=mends, looked=lambda n, path: self.looked(n, path))

    def left_out(self) -> list[HubFile]:
        """What ``models`` hold beside what was asked for: the same weights in other forms, pictures, …; the largest first."""
        found = {f for model in self.models.values() for f in model.files.values() if not f.path.startswith(".")}
        return sorted(found - self._asked, key=lambda f: (-f.size, f.path))

    def bring(self, arriving: Iterable[Arriving]) -> None:
        """Fetch these files whole and check them."""
        wanted = list(arriving)
        self.transfer.fetch(wanted)
        self.transfer.wait(wanted)

    @cached_property
    def transfer(self) -> Transfer:
        """The transfer of all files of this job."""
        self._is_open = True
        found = self._store.transfer(self._client, self, keep=not self._evict, cached=self._reads)
        found.gives_way = self._gives_way
        return found

    @cached_property
    def _store(self) -> Store:
        root, note = writable_root(self._beside)
        if note:
            self._tell(note)
        return Store(root, _EVICTING if self._evict else _KEEPING)

    @cached_property
    def _client(self) -> HubClient:
        from ..sources.hub.client import HubClient

        return HubClient(offline=self._offline)

    def named_weights(self, model: HubModel, side: Mapping[str, Arriving]) -> set[str]:
        """The files that the index of a sharded model names."""
        from ..sources.hub.choosing import index_file

        index = index_file(model)
        if index not in side:
            return set()
        named = read_object(side[index].path).get("weight_map")
        return {name for name in named.values() if isinstance(name, str)} if isinstance(named, dict) else set()

    def _open_file(self, ref: Reference, model: HubModel, io: IoMode) -> Checkpoint:
        from ..sources.hub import choosing
        from ..sources.hub.files import ArrivingFile

        chosen = choosing.one_file(model, ref.file)
        arriving = self.arriving(model, chosen)
        self._weights += arriving.values()
        self._fetch_heads(list(arriving.values()))
        path = self.folder(model)
        opened = gguf.open_gguf(
            path / chosen[0].path,
            io,
            lambda place, mode: ArrivingFile(
                place, model.files[place.relative_to(path).as_posix()],
                arriving[place.relative_to(path).as_posix()], mode,
            ),
        )  # fmt: skip
        return replace(opened, warnings=[*model.warnings, *opened.warnings])

    def _fetch_heads(self, arriving: Sequence[Arriving]) -> None:
        """Ask for the headers of all files at once rather than one after the other."""
        self.transfer.hurry_heads(arriving)

    # While the job runs; see ``engine.run.Supply``.

    def begin(self, chunks: Iterable[Chunk]) -> None:
        """These chunks are to be made: fetch what they need, in their order.

        Raises
        ------
        Locked, WriteFailed
        """
        todo = list(chunks)
        looked: set[int] = set()
        for chunk in todo:
            item = chunk.item
            # No chunk is made before all rows were looked at, so one of them is enough to keep what that takes.
            looks = item.whole and id(item) not in looked
            looked.add(id(item))
            spans = (*item.spans(chunk.start, chunk.stop), *(item.everything() if looks else ()))
            self._spans[chunk.number] = _arriving(spans)
        for chunk in sorted(todo, key=self.place):
            for arriving, offset, length in self._spans[chunk.number]:
                arriving.claim(offset, length)
        self.transfer.lock_to_read = True
        missing = self.missing_bytes()
        if missing:
            names = ", ".join(str(m) for m in self.models.values())
            self._tell(f"fetching {names}: {missing:,} bytes to download to {self._store.root}")
        self.transfer.start()

    def place(self, chunk: Chunk) -> tuple[int, int]:
        """Number of the file and the offset at which what ``chunk`` needs begins; see ``engine.run.Supply``."""
        spans = self._spans.get(chunk.number)
        if not spans:
            return 0, 0
        arriving, offset, _ = spans[0]
        return self._numbers.get(id(arriving), 0), offset

    @cached_property
    def _numbers(self) -> dict[int, int]:
        """The weight files in the order in which they are fetched, by identity."""
        return {id(arriving): number for number, arriving in enumerate(self._weights)}

    def committed(self, chunks: Iterable[Chunk]) -> None:
        """These chunks are durable: what only they needed may go."""
        for chunk in chunks:
            for arriving, offset, length in self._spans.pop(chunk.number, ()):
                arriving.unclaim(offset, length)

    def settle(self, seconds: float) -> bool:
        """Wait at most ``seconds`` until every file is whole and its digest was right, or it was released.

        Raises
        ------
        BadInput : a digest is wrong
        NetworkError : and whatever else ended the transfer
        """
        return self.transfer.wait(self._weights, seconds)

    def close(self) -> None:
        """End the transfer; what is durable stays. Readers that wait get Stopped."""
        if self._is_open:
            self.transfer.close()

    def was_amended(self) -> bool:
        """Whether bytes of any file had to be replaced after they may have been read."""
        return any(a.amended_ns for a in self._weights)

    # Disk space.

    def missing_bytes(self) -> int:
        """Bytes of the weights that are still to be downloaded."""
        return self.transfer.missing_bytes(self._weights)

    def disk_bytes(self, evict: bool | None = None) -> int:
        """Disk space that fetching will take beyond what it has, with ``evict`` as given or as it is."""
        missing = self.missing_bytes()
        window = _AHEAD_BYTES + _EVICTING.connections * _EVICTING.span_bytes + _OPEN_BYTES
        return min(missing, window) if (self._evict if evict is None else evict) else missing

    def preflight(self, plan: Plan) -> None:
        """Refuse what cannot fit: the output and what is fetched, together where they share a disk.

        Raises
        ------
        WriteFailed : names the flag that would make it fit
        """
        parent = nearest_folder(self._store.root)
        output = plan.total_bytes - sum(files.allocated_bytes(plan.part_path(i)) for i in range(len(plan.files)))
        shared = os.stat(parent).st_dev == os.stat(plan.output.parent).st_dev
        need = self.disk_bytes() + (output if shared else 0) + _RESERVE_BYTES
        free = files.free_bytes(parent)
        if need <= free or not self.missing_bytes():
            return
        evicting = need - self.disk_bytes() + self.disk_bytes(evict=True)
        hint = "Free some space, or move the cache with STREAMCONV_CACHE."
        if not self._evict and evicting <= free:
            hint = f"With --evict {evicting:,} bytes are enough: ranges are released as soon as they are converted."
        for_output = f", {output:,} for the output" if shared else ""
        what = f"{self.disk_bytes():,} for the download{for_output}, {_RESERVE_BYTES:,} in reserve"
        raise WriteFailed(f"{parent}: {need:,} bytes are needed ({what}), {free:,} are free", hint)

    # What the transfer tells; see ``engine.transfer.Observer``.

    def listen(self, tell: Tell, came: Callable[[int, str], None] | None = None) -> None:
        """Send messages to ``tell`` from now on, those kept until now first; byte counts to ``came``."""
        self._tell = tell
        if came is not None:
            self._came = came
        while self._told:
            tell(self._told.pop(0))

    def came(self, n_bytes: int, path: str) -> None:
        """``n_bytes`` more of the file ``path`` are durable."""
        self._came(n_bytes, path)

    def message(self, text: str) -> None:
        """Something a user should know."""
        self._tell(text)


def _arriving(spans: Iterable[Span]) -> list[Range]:
    """Those of ``spans`` that are in files of the hub, each once."""
    from ..sources.hub.files import ArrivingFile

    found = ((s.file.arriving, s.offset, s.length) for s in spans if isinstance(s.file, ArrivingFile))
    return list(dict.fromkeys(found))


def _paths(side: Mapping[str, Arriving]) -> dict[str, Path | bytes]:
    return {name: arriving.path for name, arriving in side.items()}
