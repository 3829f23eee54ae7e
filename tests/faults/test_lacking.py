"""Systems that lack what Linux has: renames that exchange, hard links, a list of mounts, room that can be reserved."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamconv.engine import files, renames

from . import jobs
from .injector import Fault

NOT_ON_EVERY_SYSTEM = ("posix_fadvise",)


class Lacking:
    """Stands in for the ``os`` module in ``engine/files.py``."""

    def __init__(self, real: Any, links: bool) -> None:
        self._real, self._links = real, links

    def __getattr__(self, name: str) -> Any:
        if name in NOT_ON_EVERY_SYSTEM:
            raise AttributeError(name)
        return getattr(self._real, name)

    def link(self, old: Path, new: Path) -> None:
        if not self._links:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        self._real.link(old, new)


def lacking(links: bool) -> Callable[[], None]:
    def refuse(*_args: object, **_options: object) -> Any:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def no_such_call(*_args: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def planted() -> None:
        files.os = Lacking(files.os, links)  # type: ignore[assignment]
        files.rename_with = renames.rename_with
        files.fallocate = no_such_call
        renames._call = lambda: None  # type: ignore[assignment]
        renames.open = refuse  # type: ignore[attr-defined]

    return planted


@pytest.mark.slow
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize(
    "bench",
    [pytest.param(k, marks=[] if k in ("folder", "several types") else pytest.mark.soak) for k in jobs.KINDS],
    indirect=True,
)
def test_an_output_is_made_and_replaced_where_much_is_lacking(bench: jobs.Bench, links: bool) -> None:
    planted = lacking(links)
    assert bench.go(planted=planted).code == 0
    assert jobs.contents(bench.root) == bench.right
    (bench.root / "mine").write_text("mine")
    bench.command.append("--force")
    try:
        n_calls = bench.go(planted=planted).calls
        for at in sorted({*range(1, n_calls, 3 if jobs.ALL else 9), *range(n_calls - 24, n_calls + 1, 2)}):
            where = f"call {at} of {n_calls}"
            assert bench.go(Fault(at, "kill before"), planted).code in (0, -signal.SIGKILL), where
            result = bench.go(planted=planted)
            assert result.code == 0, f"{where}: {result.stderr}"
            now = jobs.contents(bench.root)
            assert now.pop("mine"), where
            assert now == bench.right, where
    finally:
        bench.command.remove("--force")


def test_without_a_list_of_mounts_a_folder_that_is_one_is_still_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> Any:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(renames, "open", refuse, raising=False)
    assert renames.is_mount_point(Path("/proc")) == os.path.ismount("/proc")
    assert not renames.is_mount_point(Path(__file__))
