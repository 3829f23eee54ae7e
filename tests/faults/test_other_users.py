"""Folders that several users share: what somebody else put in the place of our names is not followed, believed or waited for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from re import compile as pattern

import pytest
import xxhash
from small_models import gemma2

from streamconv import cli
from streamconv.engine.index_file import PUBLISHING, RUNNING, read_progress
from streamconv.engine.journal import Journal
from streamconv.engine.record import FileRecord, load
from streamconv.errors import NoPermission

from . import jobs
from .injector import Fault, Result, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as several users"),
]

VICTIM, ATTACKER = 65534, 10001
GROUP = 10000
NONE = Fault()
#: a run that takes longer hangs
LIMIT_S = 30
#: names with a random part, which nobody can take first
RANDOM = pattern(r"\.[0-9a-f]{8,16}(\.tmp)?$|^probe\.|/probe\.")
#: written anew by a rename over what is there, and believed only if ours
DERIVED = ("plan.json", "replaced.json", "records/.")


class Commons:
    """A folder that everybody may write to, a job of the victim in it, and the victim's home."""

    def __init__(self, bench: jobs.Bench) -> None:
        self.bench, self.root, self.job, self.out = bench, bench.root, bench.job, bench.out
        for folder in (bench.root.parent, bench.root.parent.parent):
            folder.chmod(0o755)
        bench.log.parent.chmod(0o777)
        self.home = bench.root.parent / "home"
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(mode=0o700)
        (self.home / "authorized_keys").write_text("ssh-ed25519 AAAA victim\n" * 40)
        self.folder = self.home / "folder"
        self.folder.mkdir()
        for name in ("lock", "index.wal", "plan.json", "data-1.part", "config.json", "a.tmp", "old-1", "mine.txt"):
            (self.folder / name).write_text("mine")
        for inner in ("out", "old", "records"):
            (self.folder / inner).mkdir()
            (self.folder / inner / "mine.txt").write_text("mine")
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, VICTIM, VICTIM)
        self.open_to_all()
        self.before = self.state()

    def open_to_all(self, mode: int = 0o1777, owner: int = 0) -> None:
        self.bench.clean()
        os.chown(self.root, owner, GROUP)
        self.root.chmod(mode)

    def state(self) -> dict[str, tuple[int, int, bytes]]:
        """What nobody but the victim may change."""
        return {
            str(p): (s.st_mode, s.st_uid, p.read_bytes() if p.is_file() else b"")
            for p in (self.home, *sorted(self.home.rglob("*")))
            if (s := p.lstat())
        }

    def go(
        self, uid: int = VICTIM, *more: str, fault: Fault = NONE, before: Callable[[], None] | None = None
    ) -> Result:
        """Run the command as ``uid``."""

        def planted() -> None:
            if before:
                before()
            become(uid)

        return run([*self.bench.command, *more], self.bench.log, fault, planted)

    def begin(self, uid: int = VICTIM, state: int = RUNNING) -> None:
        """Leave an unfinished job behind; with PUBLISHING one that had begun to give names."""
        for at in range(self.bench.calls * (2 if state == RUNNING else 4) // 4, 4, -1):
            if self.go(uid, "--force", fault=Fault(at, "kill before")).code != -signal.SIGKILL:
                continue
            found = read_progress(self.job / "index.wal")
            named = (self.job / "replaced.json").exists()
            if found and len(found.done) and found.header.state == state and named == (state != RUNNING):
                return
        raise AssertionError("no such state was met")

    def unharmed(self, where: str) -> list[str]:
        """What is wrong: things of the victim that are not as they were, or a wrong result under a final name."""
        names = [n for n in self.bench.right if (self.root / n).is_file() and not is_planted(self.root / n)]
        wrong = [n for n in names if hashlib.sha256((self.root / n).read_bytes()).hexdigest() != self.bench.right[n]]
        return [f"{where}: {n} is wrong" for n in wrong] + [f"{where}: harm was done"] * (self.state() != self.before)


def become(uid: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIMIT_S)
    if uid:
        os.setgroups([GROUP])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def is_planted(path: Path) -> bool:
    found = path.lstat()
    return not stat.S_ISREG(found.st_mode) or found.st_uid == ATTACKER or found.st_nlink > 1


@pytest.fixture
def commons(bench: jobs.Bench) -> Commons:
    return Commons(bench)


KINDS = pytest.mark.parametrize("bench", ["one file", "shards", "folder"], indirect=True)
MODES = pytest.mark.parametrize("mode", [0o1777, 0o777, 0o2775, 0o3775], ids=oct)


def opened(commons: Commons) -> set[Path]:
    """Every path below the shared folder that a run opens: a new one, one that goes on, and ones killed while names are given."""
    log = commons.root.parent / "opened"
    fd = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)

    def trace() -> None:
        def hook(event: str, args: tuple[object, ...]) -> None:
            if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
                os.write(fd, os.fsencode(args[0]) + b"\n")

        sys.addaudithook(hook)

    commons.open_to_all()
    for at in (0.5, 0.8, 0.9, 0.97, 1):
        commons.go(before=trace, fault=Fault(int(commons.bench.calls * at), "kill before"))
    assert commons.go(before=trace).code == 0
    assert commons.go(VICTIM, "--force", before=trace).code == 0
    os.close(fd)
    names = {Path(line) for line in log.read_text().splitlines()}
    log.unlink()
    found = {p for p in names if p.is_relative_to(commons.root) and p != commons.root}
    return {p for p in found if not RANDOM.search(p.relative_to(commons.root).as_posix())}


def _link(path: Path, commons: Commons) -> None:
    path.symlink_to(commons.home / "authorized_keys")


def _dangling(path: Path, commons: Commons) -> None:
    path.symlink_to(commons.home / "new")


def _to_folder(path: Path, commons: Commons) -> None:
    path.symlink_to(commons.folder)


def _hard_link(path: Path, commons: Commons) -> None:
    os.link(commons.home / "authorized_keys", path)


def _fifo(path: Path, commons: Commons) -> None:
    os.mkfifo(path, 0o666)


def _socket(path: Path, commons: Commons) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        s.bind(path.name)
        os.chdir(here)


def _folder(path: Path, commons: Commons) -> None:
    path.mkdir(mode=0o777)
    (path / "theirs").write_text("theirs")


def _copy(path: Path, commons: Commons) -> None:
    """A file with the right contents, or nonsense where there are none, that others can write."""
    kept = path.with_name("kept")
    if kept.is_file():
        shutil.copy2(kept, path)
    else:
        path.write_bytes(b"theirs" * 999)
    path.chmod(0o666)


Plant = Callable[[Path, Commons], None]
PLANTS = [_link, _dangling, _to_folder, _hard_link, _fifo, _socket, _folder, _copy]


def plant(path: Path, how: Plant, commons: Commons) -> None:
    """Put something of the attacker's in the place of ``path``."""
    kept = path.with_name("kept")
    if os.path.lexists(path):
        path.rename(kept)
    how(path, commons)
    if how is not _hard_link:
        os.chown(path, ATTACKER, ATTACKER, follow_symlinks=False)
    if kept.is_dir():
        shutil.rmtree(kept)
    else:
        kept.unlink(missing_ok=True)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bench",
    ["one file", *(pytest.param(kind, marks=pytest.mark.soak) for kind in ("shards", "folder"))],
    indirect=True,
)
def test_what_others_put_in_the_place_of_any_file_that_a_job_opens_is_refused(commons: Commons) -> None:
    names = opened(commons)
    assert {commons.job, commons.job / "index.wal", commons.job / "lock", *commons.bench.parts} <= names, (
        "all are traced"
    )
    wrong = [
        w for path in sorted(names) for how in PLANTS for begun in (False, True) for w in met(commons, path, how, begun)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["lock", "index.wal", "data-1.part"])
def test_what_others_put_in_the_place_of_a_file_of_our_job_is_refused(commons: Commons, name: str) -> None:
    wrong = [w for how in PLANTS for w in met(commons, commons.job / name, how, begun=True)]
    assert not wrong, "\n".join(wrong)


def met(commons: Commons, path: Path, how: Plant, begun: bool) -> list[str]:
    """What goes wrong where something of the attacker's has the name ``path``; ``begun``: in the place of a file of our job."""
    where, wrong = f"{path.relative_to(commons.root)}, {how.__name__}, {'goes on' if begun else 'new'}", []
    commons.open_to_all()
    if begun:
        commons.begin()
    else:  # a lock and folders that are ours already, as a run that was killed early leaves them
        for folder in reversed([p for p in path.parents if p.is_relative_to(commons.job)]):
            folder.mkdir(mode=0o700)
            os.chown(folder, VICTIM, VICTIM)
            if folder == commons.job and path.name != "lock":
                (folder / "lock").touch(mode=0o644)
                os.chown(folder / "lock", VICTIM, VICTIM)
    if not path.parent.is_dir():
        return []  # not yet there
    plant(path, how, commons)
    for flags in ([], ["--force"]):
        result = commons.go(VICTIM, *flags)
        wrong += commons.unharmed(f"{where} {flags}")
        if result.code not in allowed(path, how, commons, begun, flags):
            wrong.append(f"{where} {flags}: exit {result.code}: {result.stderr[-300:]}")
        if result.code == 0:
            break
    if os.path.lexists(path) and is_planted(path):
        remove(path)
    after = commons.go(VICTIM, "--force")
    return wrong + commons.bench.finish(where, lambda: (after.code, after.stderr))


def allowed(path: Path, how: Plant, commons: Commons, begun: bool, flags: list[str]) -> set[int]:
    """Exit codes that a run may end with when ``path`` is not ours."""
    if path.is_relative_to(commons.job):
        inner = path.relative_to(commons.job).as_posix()
        if inner.startswith(DERIVED):
            return {0, 77} if begun and how is not _folder else {0, 73, 77}
        if begun or inner == "lock":  # in an output folder nothing may lie that no job made
            return {73, 77} if how in (_folder, _to_folder) or inner.startswith("out/") else {77}
        return {0, 73, 77}  # without a lock it is not the folder of a job, without an index nothing in it counts
    if path.name.startswith("."):  # the record: ignored where it is not ours, and in the way of ours in a sticky folder
        return {0, 73}
    # --force takes one name of a file, whose others stay.
    return {0, 73} if flags and how in (_copy, _hard_link) else {73}


@MODES
@KINDS
def test_a_job_folder_that_somebody_else_made_is_not_used(commons: Commons, mode: int) -> None:
    for theirs in (0o700, 0o777, 0o2770):
        commons.open_to_all(mode)
        commons.begin()
        forge(commons)
        for path in (commons.job, *commons.job.rglob("*")):
            os.chown(path, ATTACKER, GROUP, follow_symlinks=False)
        commons.job.chmod(theirs)
        held = jobs.contents(commons.root)
        for flags in ([], ["--update"], ["--force"]):
            result = commons.go(VICTIM, *flags)
            assert result.code == 77, result
            assert str(commons.job) in result.stderr
            assert f"belongs to user {ATTACKER}" in result.stderr
        assert jobs.contents(commons.root) == held
        for command in (["status", str(commons.out)], ["status", str(commons.out), "--json"]):
            assert run(command, commons.bench.log, planted=lambda: become(VICTIM)).code in (0, 77)


def forge(commons: Commons) -> None:
    """Other bytes, and an index that vouches for them."""
    journal = Journal.open(commons.job / "index.wal")
    assert journal is not None
    forged = []
    for s in journal.commits():
        part = commons.bench.parts[s.file]
        with part.open("r+b") as f:
            f.seek(s.offset)
            f.write(bytes(s.length))
        forged.append(s.__class__(s.chunk, s.file, s.offset, s.length, s.rows, xxhash.xxh3_128_digest(bytes(s.length))))
    journal.commit(forged)
    journal.close()


@MODES
@pytest.mark.parametrize("version", [1, 9])
def test_the_index_in_a_folder_of_somebody_else_is_not_even_read(commons: Commons, mode: int, version: int) -> None:
    commons.open_to_all(mode)
    commons.begin(ATTACKER)
    index = commons.job / "index.wal"
    if version != 1:
        import struct
        import zlib

        raw = bytearray(index.read_bytes())
        for page in (0, 4096):
            raw[page + 4 : page + 8] = struct.pack("<I", version)
            raw[page + 4092 : page + 4096] = struct.pack("<I", zlib.crc32(raw[page : page + 4092]))
        index.write_bytes(raw)
    commons.job.chmod(0o777)
    index.chmod(0o666)
    result = commons.go(VICTIM)
    assert (result.code, "other version" in result.stderr) == (77, False), result.stderr


@KINDS
def test_a_link_in_the_place_of_the_job_folder_is_refused_also_to_a_folder_of_our_own(commons: Commons) -> None:
    commons.job.symlink_to(commons.folder)
    os.chown(commons.job, VICTIM, VICTIM, follow_symlinks=False)
    for flags in ([], ["--update"], ["--force"]):
        result = commons.go(VICTIM, *flags)
        assert (result.code, "is a symbolic link" in result.stderr) == (77, True), result.stderr
        assert not commons.unharmed("link")
    commons.job.unlink()
    assert commons.go(VICTIM).code == 0


@pytest.mark.parametrize("inner", ["records", "out", "old", "out/more"])
@pytest.mark.parametrize("bench", ["one file", "folder"], indirect=True)
@pytest.mark.parametrize("state", [RUNNING, PUBLISHING])
def test_root_going_on_with_a_users_job_follows_none_of_its_links(commons: Commons, inner: str, state: int) -> None:
    commons.open_to_all(0o755, ATTACKER)
    commons.begin(ATTACKER, state)
    path = commons.job / inner
    if not path.parent.is_dir():
        path.parent.mkdir()
    remove(path)
    path.symlink_to(commons.folder)
    for flags in ([], ["--update"], ["--force"]):
        result = commons.go(0, *flags)
        assert result.code in (0, 73, 77), result
        assert not commons.unharmed(f"{inner} {flags} {result.stderr}")


@pytest.mark.parametrize("bench", ["one file", "folder"], indirect=True)
def test_root_goes_on_with_a_users_job_but_removes_nothing_that_it_names_elsewhere(commons: Commons) -> None:
    commons.open_to_all(0o755, ATTACKER)
    commons.begin(ATTACKER, PUBLISHING)
    listed = json.loads((commons.job / "replaced.json").read_text())
    for path in (commons.home / "authorized_keys", commons.folder / "mine.txt"):
        s = path.stat()
        for name in (
            os.path.relpath(path, commons.root),
            str(path),
            "out/" + os.path.relpath(path, commons.job / "old"),
        ):
            listed[name] = [s.st_size, s.st_mtime_ns, s.st_ino]
    (commons.job / "replaced.json").write_text(json.dumps(listed))
    os.chown(commons.job / "replaced.json", ATTACKER, ATTACKER)
    result = commons.go(0)
    assert (result.code, commons.unharmed("root")) == (0, []), result.stderr


@KINDS
def test_root_goes_on_with_a_job_of_the_user_whose_folder_it_is(commons: Commons) -> None:
    commons.open_to_all(0o755, VICTIM)
    commons.begin()
    result = commons.go(0)
    assert (result.code, result.calls < commons.bench.calls) == (0, True), result.stderr
    assert jobs.contents(commons.root) == commons.bench.right


@KINDS
def test_a_user_goes_on_where_root_helped(commons: Commons) -> None:
    commons.open_to_all(0o755, VICTIM)
    commons.begin()
    assert commons.go(0, fault=Fault(commons.bench.calls // 4, "kill before")).code == -signal.SIGKILL
    result = commons.go()
    assert (result.code, jobs.contents(commons.root)) == (0, commons.bench.right), result.stderr


@KINDS
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_our_own_job_goes_on_whatever_the_umask(commons: Commons, umask: int) -> None:
    def before() -> None:
        os.umask(umask)

    for mode in (0o1777, 0o2775):
        commons.open_to_all(mode)
        assert commons.go(before=before, fault=Fault(commons.bench.calls // 2, "kill before")).code == -signal.SIGKILL
        result = commons.go(before=before)
        assert (result.code, result.calls < commons.bench.calls) == (0, True), result.stderr
        assert jobs.contents(commons.root) == commons.bench.right
        for path in commons.root.rglob("*"):
            if not path.name.startswith("."):
                assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask
        assert commons.go(before=before).code == 0
        assert commons.go(VICTIM, "--force", before=before).code == 0
        assert jobs.contents(commons.root) == commons.bench.right


@KINDS
@pytest.mark.parametrize("options", [["-r"], ["-a"], ["-r", "--preserve=mode"]], ids=" ".join)
def test_a_job_folder_that_was_copied_goes_on(commons: Commons, options: list[str]) -> None:
    for umask in (0o000, 0o002, 0o022):
        commons.open_to_all(0o755, VICTIM)
        commons.begin()
        copied = commons.job.with_name("copied")
        subprocess.run(
            ["cp", *options, commons.job, copied], check=True, umask=umask, user=VICTIM, group=VICTIM, extra_groups=[]
        )
        shutil.rmtree(commons.job)
        copied.rename(commons.job)
        result = commons.go()
        assert (result.code, result.calls < commons.bench.calls) == (0, True), result.stderr
        assert jobs.contents(commons.root) == commons.bench.right


def test_a_job_file_that_others_can_write_to_is_refused(commons: Commons) -> None:
    for name in ("lock", "index.wal", "data-1.part"):
        commons.open_to_all()
        commons.begin()
        (commons.job / name).chmod(0o666)
        assert commons.go().code == 0  # nobody gets there
        commons.open_to_all()
        commons.begin()
        (commons.job / name).chmod(0o666)
        commons.job.chmod(0o755)
        result = commons.go()
        assert (result.code, "written by others" in result.stderr) == (77, True), (name, result.stderr)
        assert "chmod" in result.stderr
        (commons.job / name).chmod(0o644)
        assert commons.go().code == 0


@pytest.mark.parametrize("owner", [0, ATTACKER])
def test_a_record_of_somebody_else_lets_nothing_be_removed(commons: Commons, owner: int) -> None:
    commons.open_to_all(0o1777, owner)
    assert commons.go().code == 0
    thesis = commons.root / "out-00002-of-00002.gguf"
    thesis.write_text("the only copy")
    os.chown(thesis, VICTIM, VICTIM)
    record = commons.root / f".{commons.out.name}.streamconv"
    os.chown(record, 0, 0)  # for this test to read it
    found, s = load(record), thesis.stat()
    assert found is not None
    forged = FileRecord(thesis.name, s.st_size, s.st_mtime_ns, s.st_ino, 0, "", ())
    record.write_text(replace(found, fingerprint="00" * 32, files=[*found.files, forged]).text())
    os.chown(record, ATTACKER, ATTACKER)
    record.chmod(0o666)
    other = ["Q8_0" if a == "BF16" else a for a in commons.bench.command]
    result = run([*other, "--update"], commons.bench.log, planted=lambda: become(VICTIM))
    assert thesis.read_text() == "the only copy", result.stderr
    assert result.code in (0, 73, 77)


def test_our_own_record_is_not_believed_where_others_could_write_it(commons: Commons) -> None:
    assert commons.go().code == 0
    record = commons.root / f".{commons.out.name}.streamconv"
    assert not record.stat().st_mode & 0o022
    assert run(["verify", str(commons.out)], commons.bench.log, planted=lambda: become(VICTIM)).code == 0
    record.chmod(0o666)
    assert run(["verify", str(commons.out)], commons.bench.log, planted=lambda: become(VICTIM)).code == 66


def test_a_record_that_cannot_be_replaced_in_a_sticky_folder_is_met_before_any_work(commons: Commons) -> None:
    record = commons.root / f".{commons.out.name}.streamconv"
    record.write_text("{}")
    os.chown(record, ATTACKER, ATTACKER)
    result = commons.go()
    assert (result.code, str(record) in result.stderr) == (73, True), result.stderr
    assert not any(p.exists() for p in commons.bench.parts)
    assert not commons.job.exists()


@pytest.mark.parametrize("bench", ["one file", "folder"], indirect=True)
@pytest.mark.parametrize("flags", [["--update"], ["--force"]])
def test_an_output_of_somebody_else_in_a_sticky_folder_is_met_before_any_work(
    commons: Commons, flags: list[str]
) -> None:
    assert commons.go(ATTACKER).code == 0
    command = [("F16" if a == "BF16" else a) for a in commons.bench.command]
    held = jobs.contents(commons.root)
    result = run([*command, *flags], commons.bench.log, planted=lambda: become(VICTIM))
    assert result.code == 73, result.stderr
    assert jobs.contents(commons.root) == held
    assert not commons.job.exists()


@pytest.mark.parametrize("what", ["status", "status --json", "verify", "plan"])
@pytest.mark.parametrize("how", PLANTS)
def test_whoever_only_looks_waits_for_nothing(commons: Commons, how: Plant, what: str) -> None:
    command, *flags = what.split()
    for name in ("index.wal", "plan.json", "lock"):
        commons.open_to_all()
        commons.begin()
        plant(commons.job / name, how, commons)
        args = [command, *flags, str(commons.out)] if command != "plan" else ["plan", *commons.bench.command[1:]]
        result = run(args, commons.bench.log, planted=lambda: become(VICTIM))
        assert result.code in (0, 66, 73, 77), (name, result)
        assert not commons.unharmed(name)


def test_pins_in_a_plan_of_somebody_else_are_not_believed(commons: Commons) -> None:
    from streamconv.conversion.unfinished import recorded_plan

    commons.begin(ATTACKER)
    seen = commons.root.parent / "seen"
    seen.write_text("")
    seen.chmod(0o666)
    commons.job.chmod(0o755)
    (commons.job / "plan.json").chmod(0o644)

    def ask() -> None:
        become(VICTIM)
        try:
            seen.write_text(json.dumps(recorded_plan(commons.out)))
        except NoPermission as e:
            seen.write_text(e.message)
        os._exit(0)

    run(["--version"], commons.bench.log, planted=ask)
    assert seen.read_text() == f"{commons.job} belongs to user {ATTACKER}, not to {VICTIM}"
    seen.unlink()


@pytest.fixture(scope="module", autouse=True)
def _loaded(_often: None) -> None:
    """What a command imports late must be imported here: other users may not read where the interpreter lies."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "m", Path(folder) / "o.gguf"
        gemma2(source, 0)
        assert cli.main(["convert", str(source), str(out), "--quiet"]) == 0
        for words in (["status", out], ["status", out, "--json"], ["verify", out], ["plan", source, out]):
            assert cli.main([str(word) for word in words]) == 0
        assert cli.main(["status", str(source / "none")]) == 66
        assert cli.main(["convert", str(source), str(out), "--type", "Q8_0", "--json"]) == 73
        assert cli.main(["convert", str(source), str(out), "--type", "Q8_0", "--update"]) == 0
