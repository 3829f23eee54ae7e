"""Brings a model of the hub here, whole, for later."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from ..engine import run as runs
from ..engine.transfer import PartialDownload
from ..errors import Interrupted, Stopped
from ..file_names import HUGGING_FACE, MISTRAL, Layout
from ..sources.hub.model import HubModel, require_reference
from .hub_models import HubModels


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
) -> Fetched:
    """Fetch what a conversion of ``source`` needs; calling it again goes on where it stopped, or does nothing.

    Parameters
    ----------
    source : ``org/model[@revision]``, or one file of it
    everything : all files of the commit
    offline, refresh, mistral_format : see ``Options``
    verify : compute the digest of every wanted file that is present again, and fetch damaged files again

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
            return _fetch(hub, source, reporter, everything, verify, stop, layout)
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
) -> Fetched:
    from ..sources.hub import choosing

    ref = require_reference(source)
    model = hub.pin(ref)
    hub.notes.looked = lambda n, path: _end(model, stop)
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
    wanted = {**side, **hub.partial(model, chosen)}
    if verify:
        _verify(hub, list(wanted.values()), reporter, model, stop)
    total = sum(model.files[name].size for name in wanted)
    missing = hub.transfer.missing_bytes(wanted.values())
    reporter.start(total, total - missing)
    hub.notes.listen(reporter.message, reporter.advance)
    try:
        hub.transfer.fetch(wanted.values())
        _wait(hub, list(wanted.values()), stop, model)
    finally:
        reporter.finish()
    return Fetched(model, hub.folder(model), len(wanted), total, missing)


def _wait(hub: HubModels, wanted: list[PartialDownload], stop: runs.StopRequest, model: HubModel) -> None:
    """Until ``wanted`` files are whole, or a stop is requested."""
    while not hub.transfer.wait(wanted, 0.1):
        _end(model, stop)


def _verify(
    hub: HubModels, wanted: list[PartialDownload], reporter: runs.Reporter, model: HubModel, stop: runs.StopRequest
) -> None:
    """Read what is whole of ``wanted`` again; what is damaged is whole no more."""
    here = list({a.part: a for a in wanted if a.whole}.values())

    def looked(n_bytes: int, path: str) -> None:
        reporter.advance(n_bytes, path)
        _end(model, stop)

    reporter.start(sum(a.part.remote.size for a in here), 0)
    hub.notes.looked = looked
    try:
        hub.check(here, every=True)
    finally:
        reporter.finish()


def _end(model: HubModel, stop: runs.StopRequest) -> None:
    """Raise when a stop was requested."""
    if stop.is_due():
        where = f"{model} is incomplete; what was downloaded is kept"
        if stop.signum:
            raise Interrupted(stop.signum, f"stopped by {signal.Signals(stop.signum).name}: {where}")
        raise Stopped(f"stopped as requested: {where}", "Run the same command again to resume.")
