"""What is fetched from the hub, kept packed.

    fetch file n, and n + 1 beside it ─► its digest is right ─► pack ─► names lead to the packed file ─► the plain one goes

So of plain files at most two take disk space at a time (``disk_bytes``). The packed file is made by a job of its own in the store,
beside the plain one, which a later run finds and goes on with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..conversion.fetching import end_if_asked
from ..conversion.hub_models import HubModels
from ..conversion.options import Options
from ..conversion.prepared import Prepared
from ..engine import files
from ..engine import run as runs
from ..engine.budget import RESERVE_BYTES
from ..engine.transfer import PartialDownload
from ..engine.transfer.owned import FILE_MODE, nearest_folder
from ..engine.transfer.replacing import is_kept_here, replace
from ..errors import BadInput, InputChanged, WriteFailed
from ..file_names import PACK, PACKED_FORMATS
from ..progress import Silent
from ..sources.hub.files import PartialFile
from .frames import survey
from .making import execute_pack
from .packing import PackedFile, Packing, make_plan


def kept_packed(
    prepared: Prepared, options: Options, reporter: runs.Reporter, prepare: Callable[[], Prepared]
) -> Prepared:
    """``prepared``, or with ``options.keep_packed`` the same job planned again from files that are packed now.

    Raises
    ------
    Every error of the tree; what is fetched and packed is kept
    """
    hub = prepared.hub
    if not options.keep_packed or hub is None or not hub.weights:
        return prepared
    _preflight(hub, options)
    stop = runs.StopRequest(options.stop_after_s)
    hub.notes.listen(lambda text: reporter.message(f"note: {text}"), reporter.advance)
    total = sum(each.part.remote.size for each in hub.weights)
    reporter.start(total, total - hub.missing_bytes())
    try:
        with stop.on_signals():
            Keeper(options, reporter)(hub, hub.weights, stop)
    finally:
        reporter.finish()
        prepared.close()
    return prepare()


def disk_bytes(hub: HubModels, options: Options) -> int:
    """Disk space that fetching the weights and packing them will take at most, about, beyond what it has.

    Reads headers, which a plan has fetched.
    """
    weights = [(each, _packed_size(each, options)) for each in hub.weights]
    packable = [(each, size) for each, size in weights if size is not None]
    taken = most = 0
    for n, (each, size) in enumerate(packable):
        missing = hub.transfer.missing_bytes([each])
        most = max(most, taken + hub.transfer.missing_bytes(other for other, _ in packable[n : n + 2]) + size)
        taken += size - (each.part.remote.size - missing)  # the plain one goes
    left = taken + hub.transfer.missing_bytes(each for each, size in weights if size is None)
    return max(most, left, 0)


def _packed_size(each: PartialDownload, options: Options) -> int | None:
    """Bytes of the file once it is packed, about; None where it stays as it is."""
    if not _can_be_packed(each):
        return None
    try:
        return survey(_opened(each, options)).estimate
    except BadInput:
        return None


def _opened(each: PartialDownload, options: Options) -> PartialFile:
    """The file under its first name, by which a conversion knows it."""
    return PartialFile(each.part.links[0], each.part.remote, each, options.io)  # type: ignore[arg-type]


def _preflight(hub: HubModels, options: Options) -> None:
    """Refuse what cannot fit (WriteFailed); whether the output fits beside it is looked at when this is done."""
    place = nearest_folder(hub.root)
    need, free = disk_bytes(hub, options) + RESERVE_BYTES, files.free_bytes(place)
    if need > free:
        raise WriteFailed(
            f"{place}: {need:,} bytes are needed to fetch and pack the model ({RESERVE_BYTES:,} in reserve), {free:,} are free",
            "Free some space, or move the cache with STREAMCONV_CACHE.",
        )


class Keeper:
    """Fetches files and packs them."""

    def __init__(self, options: Options, reporter: runs.Reporter) -> None:
        # Another plan for the same file is that of an older packer, and gives way.
        self._options = Options(ram_bytes=options.ram, threads=options.threads, io=options.io, update=True)
        self._reporter = reporter

    def __call__(
        self, hub: HubModels, wanted: Sequence[PartialDownload], stop: runs.StopRequest
    ) -> list[PartialDownload]:
        """Keep packed what can be packed of ``wanted``; the others, which are left to be fetched as ever.

        Raises
        ------
        Every error of the tree; what is fetched and packed is kept
        """
        left = [each for each in wanted if not _can_be_packed(each)]
        packable = [each for each in wanted if each not in left]
        for n, each in enumerate(packable):
            hub.transfer.fetch(packable[n : n + 2])
            while not hub.transfer.wait([each], 0.1):
                end_if_asked(each.part.remote.path, stop)
            packing = self._planned(each)
            if packing is None:
                left.append(each)
                continue
            execute_pack(packing, self._options, _Within(self._reporter), stop)
            replace(hub.transfer, each, packing.plan.output, PACK)
        return left

    def _planned(self, partial: PartialDownload) -> Packing | None:
        """How the file is packed; None, and a note, where it is no file of weights after all."""
        part, file = partial.part, _opened(partial, self._options)
        try:
            found = survey(file)
        except BadInput as e:
            if isinstance(e, InputChanged):
                raise
            self._reporter.message(f"note: {part.remote.path} is kept as it is: {e.message}")
            return None
        items = [PackedFile(0, part.remote.path, file, found)]
        told = file.describe(0)
        output = part.home / "blobs" / f"{part.remote.key}{PACK}"
        plan = make_plan(output, items, [told], told.verify_unchanged, {"source": part.remote.path}, mode=FILE_MODE)
        return Packing(plan, items)


def _can_be_packed(partial: PartialDownload) -> bool:
    """Whether the file is of weights, known by the digest that a packed one has, and ours to remove."""
    remote = partial.part.remote
    is_weights = Path(remote.path).suffix in PACKED_FORMATS and remote.size > 0
    return is_weights and len(remote.key) == 64 and (not partial.whole or is_kept_here(partial))


class _Within(Silent):
    """Tells what matters of one job within another."""

    def __init__(self, reporter: runs.Reporter) -> None:
        super().__init__()
        self.message = reporter.message  # type: ignore[method-assign]
