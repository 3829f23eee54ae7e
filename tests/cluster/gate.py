"""Preloaded by Dask workers: lets a test hold them at a place of their work until it says so, instead of striking in time.

A folder is the gate. ``plan.json`` in it says where: ``{"at": place, "after": tasks that each process makes first, "slow": seconds
that every write takes longer}``. Who comes to the place while the gate is closed writes ``waits-PID``, waits until it is ``open``,
and writes ``passed-PID`` when it is done there.

    fill      before rows are made         put       before bytes are written        written   after that, before the next
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACES = ("fill", "put", "written")
_FOLDER = "STREAMCONV_GATE"


class Gate:
    """The test's end of it."""

    def __init__(self, folder: Path, at: str = "put", after: int = 1, slow: float = 0.0) -> None:
        assert at in PLACES
        self.folder = folder
        folder.mkdir()
        (folder / "plan.json").write_text(json.dumps({"at": at, "after": after, "slow": slow}))

    @property
    def env(self) -> dict[str, str]:
        """What processes are to be started with whose workers, or who as workers, come by here."""
        return {_FOLDER: str(self.folder), "DASK_DISTRIBUTED__WORKER__PRELOAD": repr([__file__])}

    def open(self) -> None:
        """Let all go on, and who comes later pass."""
        (self.folder / "open").touch()

    def waiting(self) -> set[int]:
        """Pids of the processes that have come."""
        return self._pids("waits")

    def passed(self) -> set[int]:
        """Pids of those that waited, and did what they were about to do."""
        return self._pids("passed")

    def _pids(self, what: str) -> set[int]:
        return {int(path.name.partition("-")[2]) for path in self.folder.glob(f"{what}-*")}


def _install(folder: Path) -> None:
    from streamconv.cluster import worker
    from streamconv.engine.attaching import Attached
    from streamconv.engine.making import Maker

    plan = json.loads((folder / "plan.json").read_text())
    carry_out, put, make = worker.carry_out, Attached.put, Maker.make
    n_made = 0

    def come_by(place: str) -> bool:
        if place != plan["at"] or n_made < plan["after"] or (folder / "open").exists():
            return False
        (folder / f"waits-{os.getpid()}").touch()
        while not (folder / "open").exists():
            time.sleep(0.01)
        return True

    def passed(has_waited: bool) -> None:
        if has_waited:
            (folder / f"passed-{os.getpid()}").touch()

    def carrying_out(order: str, task: Any) -> Any:
        nonlocal n_made
        answer = carry_out(order, task)
        n_made += "make" in task
        return answer

    def putting(self: Attached, file: int, data: memoryview, offset: int) -> None:
        time.sleep(plan["slow"])
        held = come_by("put")
        put(self, file, data, offset)
        passed(held)
        passed(come_by("written"))

    def making(self: Maker, bundle: Any) -> Any:
        held = come_by("fill")
        try:
            return make(self, bundle)
        finally:
            passed(held)

    patches: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
        (worker, "carry_out", carrying_out),
        (Attached, "put", putting),
        (Maker, "make", making),
    )
    for owner, name, function in patches:
        setattr(owner, name, function)


def dask_setup(_worker: object) -> None:
    """Called by Dask in a worker that is about to start."""
    if _FOLDER in os.environ:
        _install(Path(os.environ[_FOLDER]))
