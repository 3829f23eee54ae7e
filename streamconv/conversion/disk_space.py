"""Disk space that fetching models takes, beside that for the output."""

from __future__ import annotations

import os

from ..engine import files
from ..engine.budget import RESERVE_BYTES
from ..engine.plan import Plan
from ..engine.transfer.owned import nearest_folder
from ..errors import WriteFailed
from ..units import MIB
from . import hub_models
from .hub_models import HubModels

#: With --evict: those of chunks that are not committed yet.
_OPEN_BYTES = 512 * MIB


def disk_bytes(models: HubModels, evict: bool) -> int:
    """Disk space that fetching will take beyond what it has, with or without ``evict``."""
    missing, evicting = models.missing_bytes(), hub_models.EVICTING
    window = evicting.ahead_bytes + evicting.connections * evicting.span_bytes + _OPEN_BYTES
    return min(missing, window) if evict else missing


def preflight(models: HubModels, plan: Plan) -> None:
    """Refuse what cannot fit: the output and what is fetched, together where they share a disk.

    Raises
    ------
    WriteFailed : names the flag that would make it fit
    """
    parent = nearest_folder(models.root)
    output = plan.total_bytes - sum(files.allocated_bytes(plan.part_path(i)) for i in range(len(plan.files)))
    shared = os.stat(parent).st_dev == os.stat(plan.output.parent).st_dev
    fetched = disk_bytes(models, models.evict)
    need = fetched + (output if shared else 0) + RESERVE_BYTES
    free = files.free_bytes(parent)
    if need <= free or not models.missing_bytes():
        return
    evicting = need - fetched + disk_bytes(models, evict=True)
    hint = "Free some space, or move the cache with STREAMCONV_CACHE."
    if not models.evict and evicting <= free:
        hint = f"With --evict {evicting:,} bytes are enough: ranges are released as soon as they are converted."
    for_output = f", {output:,} for the output" if shared else ""
    what = f"{fetched:,} for the download{for_output}, {RESERVE_BYTES:,} in reserve"
    raise WriteFailed(f"{parent}: {need:,} bytes are needed ({what}), {free:,} are free", hint)
