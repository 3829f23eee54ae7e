"""What the commands of packed checkpoints do and print."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from . import packing, progress
from .conversion import Options, Prepared
from .engine.run import Outcome, Reporter
from .progress import duration
from .terminal import say, say_json
from .units import size


def pack(a: argparse.Namespace, options: Options) -> int:
    """``streamconv pack``."""
    found = packing.prepare_pack(a.source, a.output, options)
    return _carry_out(a, found, lambda reporter: packing.execute_pack(found, options, reporter))


def unpack(a: argparse.Namespace, options: Options) -> int:
    """``streamconv unpack``."""
    found = packing.prepare_unpack(a.source, a.output, options)
    return _carry_out(a, found, lambda reporter: packing.execute_unpack(found, options, reporter))


def kept(a: argparse.Namespace, prepare: Callable[[], Prepared], options: Options) -> Prepared:
    """What ``prepare`` plans, from what was fetched and packed before."""
    reporter = progress.reporter(quiet=a.quiet, as_json=a.json)
    with progress.told_in_errors(reporter):
        return packing.kept_packed(prepare(), options, reporter, prepare)


def _carry_out(
    a: argparse.Namespace, found: packing.Packing | packing.Unpacking, work: Callable[[Reporter], Outcome | None]
) -> int:
    """Do what is planned, and say how it went."""
    began = time.monotonic()
    reporter = progress.reporter(quiet=a.quiet, as_json=a.json)
    for text in found.warnings:
        reporter.message(f"note: {text}")
    with progress.told_in_errors(reporter):
        outcome = work(reporter)
    paths = [f.path for f in found.plan.files]
    read, written = sum(i["size"] for i in found.plan.inputs), sum(path.stat().st_size for path in paths)
    if a.json:
        say_json(
            {
                "event": "done", "status": "done", "resumable": False, "done": written, "total": written,
                "bytes": outcome.made_bytes if outcome else 0, "files": [str(path) for path in paths],
                "already": outcome is None, "next": "",
            }
        )  # fmt: skip
    elif not a.quiet:
        name = f"{found.plan.output}/ ({len(paths)} files)"
        if outcome is None:
            say(f"{name} is already complete ({size(written)}); nothing to do")
        else:
            say(
                f"{name}: {size(read)} of weights read, {size(written)} written",
                f"  {duration(time.monotonic() - began)}, peak {size(reporter.peak_memory)} RAM",
                *(f"  note: {text}" for text in outcome.notes),
            )
    return 0
