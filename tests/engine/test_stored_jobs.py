"""Unfinished jobs and finished outputs that versions of streamconv left, as ``tests/stored_jobs.py`` keeps them.

Inodes, times and devices of files that were unpacked are never those on record, so contents decide.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import stored_jobs

from streamconv import cli
from streamconv.engine.plan import KERNEL_ABI

UNFINISHED = [name for name in stored_jobs.COMMANDS if "finished" not in name]
FINISHED = [name for name in stored_jobs.COMMANDS if "finished" in name]
#: version whose jobs this one goes on with, as long as bytes are made in the same way
OURS = "0.2.0"
VERSIONS = ["0.1.0", OURS]
Bytes = dict[str, bytes]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Function that gives a folder with the jobs of a version and their inputs."""
    return lambda version: _unpacked(version, tmp_path_factory.mktemp(version))


def _unpacked(version: str, folder: Path) -> Path:
    stored_jobs.unpack(version, folder)
    return folder


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bytes]:
    """Function that gives what this version makes of a command."""
    found: dict[str, Bytes] = {}

    def make(name: str) -> Bytes:
        if name not in found:
            root = tmp_path_factory.mktemp("fresh")
            stored_jobs.inputs(root)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(root)
                assert _run(name) == 0
            found[name] = _files(root, name)
        return found[name]

    return make


def _run(name: str, *more: str) -> int:
    return cli.main([*stored_jobs.COMMANDS[name], *stored_jobs.COMMON, *more])


def _files(root: Path, name: str) -> Bytes:
    """The files of the output that the command of this name makes, and of whatever else is left of it."""
    output = Path(stored_jobs.COMMANDS[name][2])
    tops = [
        p for p in root.iterdir() if p.name.startswith(output.stem) and p.name[len(output.stem) :][:1] in ("", ".", "-")
    ]
    listed = [p for top in tops for p in ([top] if top.is_file() else top.rglob("*")) if p.is_file()]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in listed}


def test_the_archives_are_small() -> None:
    assert sum(p.stat().st_size for p in stored_jobs.JOBS.iterdir()) < 300_000


def test_what_this_version_left_is_made_in_the_same_way_still() -> None:
    assert KERNEL_ABI == 1, "jobs of an older KERNEL_ABI are refused: move OURS up, and keep the old archive for that"


@pytest.mark.slow
@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_job_of_this_version_goes_on_though_everything_was_copied(
    name: str,
    stored: Callable[[str], Path],
    fresh: Callable[[str], Bytes],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(stored(OURS))
    assert cli.main([*stored_jobs.COMMANDS[name], *stored_jobs.COMMON[:-1]]) == 0
    told = capfd.readouterr()
    assert "were finished by earlier runs" in told.out + told.err
    assert _files(Path(), name) == fresh(name)


@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_job_of_which_an_input_was_changed_is_refused_and_then_made_right(
    name: str, stored: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stored(OURS))
    source = stored_jobs.COMMANDS[name][1]
    weights = Path("b" if source == "ties.yml" else source, "model.safetensors")
    data = bytearray(weights.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    for at in range(start, len(data), 64):
        data[at] ^= 0x10
    weights.write_bytes(data)
    before = _files(Path(), name)
    assert _run(name) == 65
    assert {n: d for n, d in _files(Path(), name).items() if not n.endswith("lock")} == {
        n: d for n, d in before.items() if not n.endswith("lock")
    }
    assert _run(name, "--update") == 0
    changed = _files(Path(), name)
    assert cli.main(["verify", stored_jobs.COMMANDS[name][2], "--quiet"]) == 0
    shutil.rmtree(stored_jobs.COMMANDS[name][2], ignore_errors=True)
    for path in changed:
        Path(path).unlink(missing_ok=True)
    assert _run(name) == 0
    assert _files(Path(), name) == changed


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_output_of_this_version_is_known_by_its_record(
    name: str, stored: Callable[[str], Path], fresh: Callable[[str], Bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stored(OURS))
    output = stored_jobs.COMMANDS[name][2]
    assert cli.main(["verify", output, "--quiet"]) == 0
    before = {p: (Path(p).stat().st_mtime_ns, Path(p).stat().st_ino) for p in _files(Path(), name)}
    for flags in ([], ["--update"]):
        assert _run(name, *flags) == 0
        assert {p: (Path(p).stat().st_mtime_ns, Path(p).stat().st_ino) for p in _files(Path(), name)} == before
    assert _files(Path(), name) == fresh(name)


@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_job_of_the_version_before_is_refused_and_begun_anew_when_asked(
    name: str, stored: Callable[[str], Path], fresh: Callable[[str], Bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stored("0.1.0"))
    before = _files(Path(), name)
    assert _run(name) == 78
    assert _files(Path(), name) == before
    assert _run(name, "--update") == 0
    assert _files(Path(), name) == fresh(name)


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_output_of_the_version_before_is_ours_and_of_another_plan(
    name: str, stored: Callable[[str], Path], fresh: Callable[[str], Bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stored("0.1.0"))
    before = _files(Path(), name)
    assert _run(name) == 73
    assert cli.main(["verify", stored_jobs.COMMANDS[name][2], "--quiet"]) == 66
    assert _files(Path(), name) == before
    assert _run(name, "--update") == 0
    assert _files(Path(), name) == fresh(name)
