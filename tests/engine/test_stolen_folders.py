"""A run that is stopped while it gives names, whose folder is removed meanwhile, and in whose place another one begins."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.injector import CALLS
from toy_jobs import folder_plan, go, listing, make_plan, toys

from streamconv.engine import files, job, run
from streamconv.engine.budget import share
from streamconv.engine.plan import Plan
from streamconv.engine.record import record_path
from streamconv.errors import CannotCreate, Locked, StreamconvError
from streamconv.progress import Silent

KINDS: dict[str, Callable[[Path, str], Plan]] = {
    "one file": lambda folder, tag: make_plan(folder, toys(), tag),
    "three files": lambda folder, tag: make_plan(folder, toys(), tag, n_files=3),
    "folder": folder_plan,
}


#: right before them is looked whose folder it is, and between that and the call nothing can happen here
REMOVALS = {"unlink", "rmdir"}


class Paused:
    """Stands in for the ``os`` module in ``engine/files.py``; lets something happen right before a call that changes a disk."""

    def __init__(self, at: int, then: Callable[[], None]) -> None:
        self.at, self.then, self.count, self._inside = at, then, 0, False

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return (lambda *a, **k: self.call(real, *a, **k)) if name in CALLS - REMOVALS else real

    def call(self, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self._inside:
            self.count += 1
            if self.count == self.at:
                self._inside = True
                self.then()
                self._inside = False
        return real(*args, **kwargs)


def half(opened: job.Job) -> None:
    """Let a job make some of its chunks."""
    stop = run.StopRequest()
    count = 0

    def hook(_row: int) -> None:
        nonlocal count
        count += 1
        if count > 30:
            stop.event.set()

    for p in opened.plan.placements:
        p.item.hook = hook  # type: ignore[attr-defined]
    with pytest.raises(StreamconvError):
        run.run(opened, share(1 << 24, 1, 64, 128), Silent(), stop)
    for p in opened.plan.placements:
        p.item.hook = lambda row: None  # type: ignore[attr-defined]
    opened.done = {s.chunk: s for s in opened.journal.commits()}
    assert opened.done


def outputs(folder: Path) -> dict[str, bytes]:
    """What lies under final names."""
    return {n: b for n, b in listing(folder).items() if ".streamconv" not in n}


@pytest.mark.parametrize("exchanges", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("replaces", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("kind", ["one file", *(pytest.param(k, marks=pytest.mark.slow) for k in [*KINDS][1:])])
def test_whoever_wakes_in_the_folder_of_another_run_takes_nothing_from_it(
    tmp_path: Path, kind: str, replaces: bool, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename_with = files.rename_with
    right = {}
    for tag in ("old", "first", "second"):
        (tmp_path / tag).mkdir()
        go(KINDS[kind](tmp_path / tag, tag))
        right[tag] = outputs(tmp_path / tag)
    for at in range(1, 400):
        work = tmp_path / f"work-{at}"
        work.mkdir()
        if replaces:
            go(KINDS[kind](work, "old"))
        first = job.Job.open(KINDS[kind](work, "first"), update=True)
        others: list[job.Job] = []

        def stolen(work: Path = work, others: list[job.Job] = others) -> None:
            shutil.rmtree(KINDS[kind](work, "first").job_dir, ignore_errors=True)
            others.append(job.Job.open(KINDS[kind](work, "second"), force=True))
            half(others[0])

        done = {s.chunk: s for s in first.journal.commits()}
        paused = Paused(at, stolen)
        publish = first.publish

        def from_here(paused: Paused = paused, publish: Callable[[], None] = publish) -> None:
            monkeypatch.setattr(files, "os", paused)
            monkeypatch.setattr(files, "rename_with", lambda *a: paused.call(rename_with, *a) if exchanges else False)
            publish()

        first.publish = from_here  # type: ignore[method-assign]
        ended = True
        try:
            run.run(first, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())
        except (Locked, CannotCreate):
            ended = False
        finally:
            monkeypatch.undo()
        first.close()
        assert not done
        if not others:
            assert ended
            return
        here = f"{kind}, call {at}"
        kept = {s.chunk: s for s in others[0].journal.commits()}
        assert repr(kept) == repr(others[0].done), here
        now = outputs(work)
        if ended:
            assert now == right["first"], here
        for name, held in now.items():
            assert held in (right["old"].get(name), right["first"].get(name)), f"{here}: {name} is no one's"
        others[0].confirm()
        if kind == "folder" and now == right["first"] and not record_path(others[0].plan.output).exists():
            others[0].close()  # without a record nobody knows whose these files are, as they name no job
            continue
        outcome = run.run(others[0], share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())
        assert outcome.resumed_bytes == sum(s.length for s in kept.values())
        others[0].close()
        assert outputs(work) == right["second"], here
        names = {record_path(o).name for o in others[0].plan.outputs} | {Path(n).parts[0] for n in right["second"]}
        assert {p.name for p in work.iterdir()} == names, here
    raise AssertionError("it never ended by itself")
