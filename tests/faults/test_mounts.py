"""Jobs on real filesystems: what cannot get its name is refused before any work, everything else gives the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from streamconv.engine import files, job, trials

from . import jobs, mounting
from .injector import Fault, FaultyOs, Result, run
from .mounting import apart, mount, umount

_REFUSAL = mounting.refusal()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(_REFUSAL), reason=_REFUSAL or "none")]

KINDS = ("one file", "shards", "folder")
OTHER = {"BF16": "F16", "F16": "BF16"}


@dataclass
class Stage:
    """A place to mount something at, and jobs there.

    Attributes
    ----------
    place : an empty folder
    models, rights : what jobs are made of, and what comes of them on a filesystem without faults, by kind and type
    """

    place: Path
    models: Path
    bench_of: Callable[[str], jobs.Bench]
    rights: dict[tuple[str, bool], dict[str, str]] = field(default_factory=dict)

    def bench(self, kind: str) -> jobs.Bench:
        """A job of that kind, on what is mounted."""
        bench = jobs.Bench(self.place / kind.replace(" ", "-"), self.models, kind)
        bench.clean()
        bench.log = self.place.with_name("log")  # where no disk is full
        return bench


@pytest.fixture
def stage(tmp_path: Path, models: Path, bench_of: Callable[[str], jobs.Bench]) -> Stage:
    (tmp_path / "place").mkdir()
    found = Stage(tmp_path / "place", models, bench_of)
    for kind in KINDS:
        bench = bench_of(kind)
        for other in (False, True):
            bench.clean()
            assert go(bench, other).code == 0
            found.rights[kind, other] = jobs.contents(bench.root)
        assert found.rights[kind, False] != found.rights[kind, True]
    return found


def go(bench: jobs.Bench, other: bool = False, *more: str, fault: Fault = Fault(), **options: Any) -> Result:  # noqa: B008
    """Run the command; ``other``: with another type."""
    command = [OTHER.get(a, a) if other else a for a in bench.command]
    return run([*command, *more], bench.log, fault, **options)


def made_nothing(bench: jobs.Bench) -> bool:
    """Whether no byte of the output was made: no part, and no job folder of ours is left."""
    left = [p for p in bench.job.rglob("*") if p.is_file()] if bench.job.is_dir() else []
    return not left and not any(p.exists() for p in bench.parts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", mounting.FILESYSTEMS)
def test_every_filesystem_gives_the_same_bytes_also_after_kills_and_when_replaced(
    stage: Stage, name: str, kind: str
) -> None:
    def body() -> None:
        mounting.FILESYSTEMS[name](stage.place)
        bench = stage.bench(kind)
        assert bench.right == stage.rights[kind, False]
        for at in sorted({1, 5, bench.calls // 2, *range(bench.calls - 16, bench.calls, 3)}):
            for other in (False, True):  # the second over the first
                killed = go(bench, other, "--update", fault=Fault(at, "kill before"))
                assert killed.code in (0, -signal.SIGKILL), killed
                result = go(bench, other, "--update")
                assert result.code == 0, f"call {at}: {result.stderr}"
                assert jobs.contents(bench.root) == stage.rights[kind, other], f"call {at}"
                assert go(bench, other).code == 0
            shutil.rmtree(bench.root)
            bench.root.mkdir()

    apart(body)


def _bind(path: Path, folder: bool) -> None:
    beside = path.with_name("beside")
    beside.mkdir() if folder else beside.write_text("mounted")
    if not path.exists():
        path.mkdir(mode=0o700) if folder else path.write_text("")
    mount("--bind", beside, path)


def _final(bench: jobs.Bench) -> Path:
    """What gets its name by a rename: a folder, or the last file."""
    return bench.out if bench.kind == "folder" else bench.root / max(bench.right)


def _out_bound(bench: jobs.Bench) -> Path:
    _bind(_final(bench), bench.kind == "folder")
    return _final(bench)


def _out_tmpfs(bench: jobs.Bench) -> Path:
    if bench.kind != "folder":
        pytest.skip("a file is no tmpfs")
    bench.out.mkdir()
    mounting.tmpfs(bench.out)
    return bench.out


def _old_out_bound(bench: jobs.Bench) -> Path:
    """What is there is the very output of an earlier run, mounted onto itself."""
    assert go(bench).code == 0
    mount("--bind", _final(bench), _final(bench))
    return _final(bench)


def _record_bound(bench: jobs.Bench) -> Path:
    record = bench.out.with_name(f".{bench.out.name}.streamconv")
    _bind(record, False)
    return record


def _record_folder(bench: jobs.Bench) -> Path:
    record = bench.out.with_name(f".{bench.out.name}.streamconv")
    record.mkdir()
    return record


def _job_tmpfs(bench: jobs.Bench) -> Path:
    bench.job.mkdir(mode=0o700)
    mount("-t", "tmpfs", "-o", "size=256m,mode=0700", "none", bench.job)
    return bench.job


def _job_bound(bench: jobs.Bench) -> Path:
    bench.job.mkdir(mode=0o700)
    mount("--bind", bench.job, bench.job)
    return bench.job


def _immutable(flag: str) -> Callable[[jobs.Bench], Path]:
    def arrange(bench: jobs.Bench) -> Path:
        assert go(bench).code == 0
        subprocess.run(["chattr", flag, str(_final(bench))], check=True)
        return _final(bench)

    return arrange


OBSTACLES: dict[str, Callable[[jobs.Bench], Path]] = {
    "OUT is a bind mount": _out_bound,
    "OUT is a tmpfs": _out_tmpfs,
    "an old OUT is mounted onto itself": _old_out_bound,
    "the record is a bind mount": _record_bound,
    "the record is a folder": _record_folder,
    "the job folder is a tmpfs": _job_tmpfs,
    "the job folder is a bind mount": _job_bound,
    "OUT is immutable": _immutable("+i"),
    "OUT can only be appended to": _immutable("+a"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_no_rename_reaches_is_refused_before_any_work(stage: Stage, obstacle: str, kind: str) -> None:
    def body() -> None:
        mounting.ext4(stage.place)
        bench = stage.bench(kind)
        named = OBSTACLES[obstacle](bench)
        before = jobs.contents(bench.root)
        try:
            for flags in ([], ["--update"], ["--force"]):
                result = go(bench, True, *flags)
                assert (result.code, not flags or str(named) in result.stderr) == (73, True), f"{flags}: {result}"
                assert made_nothing(bench)
                assert jobs.contents(bench.root) == before
        finally:
            subprocess.run(["chattr", "-R", "-ia", str(stage.place)], check=False, capture_output=True)

    apart(body)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mount_that_comes_while_it_runs_ends_it_with_73_and_it_can_go_on_after_it(stage: Stage, kind: str) -> None:
    def body() -> None:
        mounting.ext4(stage.place)
        bench = stage.bench(kind)
        name = _final(bench)

        def planted() -> None:
            real = files.sync_data

            def sync_data(fd: int, path: Path) -> None:
                if path in bench.parts and not os.path.ismount(name) and not name.exists():
                    _bind(name, kind == "folder")
                real(fd, path)

            files.sync_data = sync_data

        result = go(bench, planted=planted)
        assert result.code == 73, result
        umount(name)
        shutil.rmtree(name) if kind == "folder" else name.unlink()
        beside = name.with_name("beside")
        shutil.rmtree(beside) if kind == "folder" else beside.unlink()
        result = go(bench)
        assert (result.code, "finished by earlier runs" in result.stderr) == (0, True), result
        assert jobs.contents(bench.root) == stage.rights[kind, False]

    apart(body)


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_to_another_filesystem_in_the_place_of_the_job_folder_is_refused(stage: Stage, kind: str) -> None:
    def body() -> None:
        bench = stage.bench(kind)
        other = stage.place.with_name("other")
        other.mkdir()
        mounting.tmpfs(other)
        bench.job.symlink_to(other)
        result = go(bench)
        assert (result.code, "is a symbolic link" in result.stderr) == (77, True), result
        assert not list(other.iterdir())

    apart(body)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ["finished", "unfinished", "publishing", "empty"])
def test_what_lies_in_a_lower_layer_of_an_overlay_goes_on_or_is_refused_before_any_work(
    stage: Stage, kind: str, state: str
) -> None:
    def body() -> None:
        mounting.overlay(stage.place)
        bench = stage.bench(kind)
        if state == "finished":
            assert go(bench).code == 0
        elif state == "empty":
            if kind == "folder":
                bench.out.mkdir()
        else:
            at = bench.calls // 2 if state == "unfinished" else bench.calls - 8
            assert go(bench, fault=Fault(at, "kill before")).code == -signal.SIGKILL
        mounting.restack(stage.place)
        if state == "finished":
            assert go(bench).code == 0
            assert jobs.contents(bench.root) == stage.rights[kind, False]
            result = go(bench, True, "--update")
        else:
            result = go(bench)
        if result.code == 0:
            assert jobs.contents(bench.root) == stage.rights[kind, state == "finished"]
            return
        assert kind == "folder", result
        assert (result.code, "cannot be renamed" in result.stderr) == (73, True), result
        if state in ("finished", "empty"):
            assert made_nothing(bench)
            assert jobs.contents(bench.out) == (jobs.contents(bench.out) if state == "empty" else _inside(stage, kind))

    apart(body)


def _inside(stage: Stage, kind: str) -> dict[str, str]:
    return {name.partition("/")[2]: digest for name, digest in stage.rights[kind, False].items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("room", [0, 40, 80, 160, 200, 204, 208, 212, 216, 224, 256])
def test_a_disk_that_fills_while_an_output_is_replaced_costs_neither_the_old_one_nor_the_work(
    stage: Stage, kind: str, room: int
) -> None:
    def body() -> None:
        job.RESERVE_BYTES = 0  # in this child
        mounting.ext4(stage.place, 4 << 20, "-O", "^has_journal")
        bench = stage.bench(kind)
        assert go(bench).code == 0
        filler = stage.place / "filler"
        fd = os.open(filler, os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(fd, 0, max(0, os.statvfs(stage.place).f_bavail - room) * 1024 - 40 * 1024)
        os.close(fd)

        result = go(bench, True, "--update")
        now = jobs.contents(bench.root)
        if result.code:
            assert result.code == 74, result
            held = {n: d for n, d in now.items() if ".streamconv" not in n}
            assert held == stage.rights[kind, False]
        filler.unlink()
        again = go(bench, True, "--update")
        assert again.code == 0, again
        assert jobs.contents(bench.root) == stage.rights[kind, True]

    apart(body)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.3, 0.7, 0.85, 0.9, 0.95, 0.97, 0.99])
def test_a_disk_that_the_kernel_gives_up_on_while_it_runs_costs_no_output_and_no_work(
    stage: Stage, kind: str, part: float
) -> None:
    def body() -> None:
        mounting.ext4(stage.place)
        image = stage.place.with_suffix(".image")
        bench = stage.bench(kind)
        assert go(bench).code == 0
        mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
        device = next(words[0] for words in mounts if words[1] == str(stage.place))
        trigger = Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error"
        if not trigger.exists():
            pytest.skip(f"{trigger} is missing")
        n_calls = go(bench, True, "--update").calls
        assert go(bench, False, "--update").code == 0

        def planted() -> None:
            class Failing(FaultyOs):
                def _call(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                    if self.count + 1 == int(n_calls * part):
                        trigger.write_text("read-only from here")
                    return super()._call(name, real, *args, **kwargs)

            failing = Failing(Fault())
            files.os = trials.os = failing  # type: ignore[assignment]
            files.rename_with = failing.rename_with
            files.fallocate = failing.fallocate

        result = go(bench, True, "--update", planted=planted)
        assert result.code in (73, 74, 77), result
        assert "unexpected" not in result.stderr
        umount(stage.place)
        subprocess.run(["fsck.ext4", "-fy", str(image)], capture_output=True, check=False)
        mount("-o", "loop", image, stage.place)
        for name, digest in jobs.contents(bench.root).items():
            if ".streamconv" not in name:
                assert digest in (stage.rights[kind, False].get(name), stage.rights[kind, True].get(name)), name
        again = go(bench, True, "--update")
        assert again.code == 0, again
        assert jobs.contents(bench.root) == stage.rights[kind, True]

    apart(body)


def test_a_subvolume_of_btrfs_can_be_an_output_folder_again(stage: Stage) -> None:
    def body() -> None:
        mounting.btrfs(stage.place)
        bench = stage.bench("folder")
        subprocess.run(["btrfs", "subvolume", "create", str(bench.out)], check=True, capture_output=True)
        result = go(bench)
        assert result.code in (0, 73), result
        if result.code == 0:
            assert jobs.contents(bench.root) == stage.rights["folder", False]
        else:
            assert made_nothing(bench)

    apart(body)


def test_names_with_spaces_and_backslashes_are_found_among_the_mount_points(stage: Stage) -> None:
    def body() -> None:
        from streamconv.engine.renames import is_mount_point

        for name in ("a b", "tab\there", "line\nbreak", "back\\slash", "hash#"):
            path = stage.place / name
            path.write_text("")
            assert not is_mount_point(path)
            mount("--bind", path, path)
            assert is_mount_point(path), name
            link = stage.place.with_name("link")
            link.unlink(missing_ok=True)
            link.symlink_to(stage.place)
            assert is_mount_point(link / name)

    apart(body)
