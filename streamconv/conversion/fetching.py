"""Brings a model of the hub here, whole, for later."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine import files
from ..engine import run as runs
from ..engine.transfer import PartialDownload
from ..errors import Interrupted, Stopped
from ..file_names import HUGGING_FACE, MISTRAL, Layout
from ..sources.hub.model import HubFile, HubModel, require_reference
from .hub_models import HubModels
from .verifying_store import damage_of_pack

#: brings files here in a way of its own; those that are left to be fetched as ever
Keep = Callable[[HubModels, Sequence[PartialDownload], runs.StopRequest], list[PartialDownload]]


@dataclass(frozen=True)
class Fetched:
    """What ``fetch`` did.

    Attributes
    ----------
    folder : where the files are, by their names
    n_files, total_bytes : all that were wanted
    fetched_bytes : those that this run downloaded
    """

    model: HubModel
    folder: Path
    n_files: int
    total_bytes: int
    fetched_bytes: int


def fetch(
    source: str,
    reporter: runs.Reporter,
    *,
    everything: bool = False,
    offline: bool = False,
    refresh: bool = False,
    verify: bool = False,
    stop_after_s: float | None = None,
    mistral_format: bool = False,
    keep: Keep | None = None,
) -> Fetched:
    """Fetch what a conversion of ``source`` needs; calling it again goes on where it stopped, or does nothing.

    Parameters
    ----------
    source : ``org/model[@revision]``, or one file of it
    everything : all files of the commit
    offline, refresh, mistral_format : see ``Options``
    verify : compute the digest of every wanted file that is present again, and fetch damaged files again
    keep : fetches files of weights in its own way

    Raises
    ------
    NetworkError, InputMissing, NoPermission, Locked, WriteFailed : what is here is kept
    BadInput : a digest is wrong, and will stay so
    Stopped, Interrupted : asked to stop
    """
    stop = runs.StopRequest(stop_after_s)
    hub = HubModels(Path(), offline=offline, refresh=refresh, reads=False)
    hub.notes.listen(reporter.message)
    try:
        with stop.on_signals():
            layout = MISTRAL if mistral_format else HUGGING_FACE
            return _fetch(hub, source, reporter, everything, verify, stop, layout, keep)
    finally:
        hub.close()


def _fetch(
    hub: HubModels,
    source: str,
    reporter: runs.Reporter,
    everything: bool,
    verify: bool,
    stop: runs.StopRequest,
    layout: Layout,
    keep: Keep | None,
) -> Fetched:
    from ..sources.hub import choosing

    ref = require_reference(source)
    model = hub.pin(ref)
    hub.notes.looked = lambda n, path: end_if_asked(model, stop)
    for text in model.warnings:
        reporter.message(f"note: {text}")
    side = hub.partial(model, [] if ref.file else choosing.side_files(model, layout))
    hub.transfer.fetch(side.values())
    _wait(hub, list(side.values()), stop, model)
    if everything:
        chosen = [f for _, f in sorted(model.files.items())]
    elif ref.file:
        chosen = choosing.one_file(model, ref.file)
    else:
        chosen = choosing.weight_files(model, hub.named_weights(model, side, layout), layout)
        chosen += choosing.module_files(model)
    packed = {f.path for f in chosen if _is_packed(hub, f, reporter, verify, keep is not None)}
    weights = hub.partial(model, [f for f in chosen if f.path not in packed])
    wanted = {**side, **weights}
    if verify:
        _verify(hub, list(wanted.values()), reporter, model, stop)
    names = {*wanted, *packed}
    total = sum(model.files[name].size for name in names)
    missing = hub.transfer.missing_bytes(wanted.values())
    reporter.start(total, total - missing)
    hub.notes.listen(reporter.message, reporter.advance)
    try:
        left = list(weights.values()) if keep is None else keep(hub, list(weights.values()), stop)
        hub.transfer.fetch([*side.values(), *left])
        _wait(hub, [*side.values(), *left], stop, model)
    finally:
        reporter.finish()
    return Fetched(model, hub.folder(model), len(names), total, missing)


def _is_packed(hub: HubModels, file: HubFile, reporter: runs.Reporter, verify: bool, alone: bool) -> bool:
    """Whether ``file`` is kept packed, ``alone``: and not plain; to ``verify``, one that is damaged is set aside."""
    place = hub.packed(file)
    if place is not None and alone and place.with_name(file.key).exists():
        return False  # a run was killed before the plain one went
    if place is None or not verify:
        return place is not None
    damage = damage_of_pack(place, file.key, lambda n_bytes: None)
    if damage:
        aside = place.with_name(f"{place.name}.damaged")
        files.publish(place, aside)
        reporter.message(f"{file.path}: {damage}; fetching it again, kept as {aside}")
    return not damage


def _wait(hub: HubModels, wanted: list[PartialDownload], stop: runs.StopRequest, model: HubModel) -> None:
    """Until ``wanted`` files are whole, or a stop is requested."""
    while not hub.transfer.wait(wanted, 0.1):
        end_if_asked(model, stop)


def _verify(
    hub: HubModels, wanted: list[PartialDownload], reporter: runs.Reporter, model: HubModel, stop: runs.StopRequest
) -> None:
    """Read what is whole of ``wanted`` again; what is damaged is whole no more."""
    here = list({a.part: a for a in wanted if a.whole}.values())

    def looked(n_bytes: int, path: str) -> None:
        reporter.advance(n_bytes, path)
        end_if_asked(model, stop)

    reporter.start(sum(a.part.remote.size for a in here), 0)
    hub.notes.looked = looked
    try:
        hub.check(here, every=True)
    finally:
        reporter.finish()


def end_if_asked(what: object, stop: runs.StopRequest) -> None:
    """Raise when a stop was requested while ``what`` was fetched."""
    if stop.is_due():
        where = f"{what} is incomplete; what was downloaded is kept"
        if stop.signum:
            raise Interrupted(stop.signum, f"stopped by {signal.Signals(stop.signum).name}: {where}")
        raise Stopped(f"stopped as requested: {where}", "Run the same command again to resume.")
