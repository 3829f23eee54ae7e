"""One input file: identity, hints, reading modes."""

from __future__ import annotations

import gc
import mmap
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from streamconv.errors import BadInput, InputChanged, InputMissing, NoPermission
from streamconv.sources.mapped import MappedFile

PAGE = mmap.PAGESIZE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(np.random.default_rng(0).bytes(10 * PAGE + 100))
    return path


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_views_are_the_bytes_of_the_file_and_read_only(path: Path, io: str) -> None:
    file = MappedFile(path, io)  # type: ignore[arg-type]
    view = file.view(7, 5000)
    assert view.tobytes() == path.read_bytes()[7:5007]
    assert not view.flags.writeable
    buffer = np.empty(100, np.uint8)
    file.read_into(PAGE - 50, buffer)
    assert buffer.tobytes() == path.read_bytes()[PAGE - 50 : PAGE + 50]


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_ranges_past_the_end_are_refused(path: Path, io: str) -> None:
    file = MappedFile(path, io)  # type: ignore[arg-type]
    for offset, length in ((file.size, 1), (-1, 2), (0, file.size + 1)):
        with pytest.raises(BadInput, match=r"data\.bin"):
            file.view(offset, length)
    assert file.view(file.size, 0).size == 0


def test_hints_change_nothing_and_keep_pages_on_the_edges(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def advise(_fd: int, start: int, length: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED:
            asked.append((start, length))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    file = MappedFile(path)
    before = file.view(0, file.size).tobytes()
    file.prefetch(PAGE + 1, 10)
    file.release(1, PAGE - 1)  # not one whole page
    assert asked == []
    file.release(1, 3 * PAGE)
    assert asked == [(PAGE, 2 * PAGE)]
    file.release(9 * PAGE, PAGE + 100)  # the last page ends with the file
    assert asked[1:] == [(9 * PAGE, PAGE + 100)]
    file.prefetch(file.size, 0)
    assert file.view(0, file.size).tobytes() == before


def test_release_gives_the_pages_back(path: Path) -> None:
    smaps = Path("/proc/self/smaps")
    if not smaps.exists():
        pytest.skip("needs /proc")

    def resident() -> int:
        lines = iter(smaps.read_text().splitlines())
        for line in lines:
            if line.endswith(str(path)):
                return int(next(row for row in lines if row.startswith("Rss:")).split()[1])
        raise AssertionError("not mapped")

    file = MappedFile(path)
    file.view(0, file.size).sum()
    assert resident() > 0
    file.release(0, file.size)
    assert resident() == 0
    assert file.view(0, file.size).tobytes() == path.read_bytes()


def test_a_hint_that_the_system_refuses_is_ignored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*advice: object) -> None:
        asked.append(advice)
        raise OSError(22, "no such advice")

    monkeypatch.setattr(os, "posix_fadvise", refuse, raising=False)
    file = MappedFile(path, "pread")
    file.prefetch(0, file.size)
    file.release(0, file.size)
    assert asked


def test_any_change_of_the_file_is_noticed(path: Path, tmp_path: Path) -> None:
    file = MappedFile(path).describe(0)
    file.verify_unchanged()
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputChanged, match="mtime"):
        file.verify_unchanged()
    again = MappedFile(path).describe(0)
    (tmp_path / "other").write_bytes(path.read_bytes())
    os.utime(tmp_path / "other", ns=(1, 1))
    os.replace(tmp_path / "other", path)
    with pytest.raises(InputChanged, match="inode"):
        again.verify_unchanged()
    path.unlink()
    with pytest.raises(InputChanged, match="gone") as caught:
        again.verify_unchanged()
    assert caught.value.exit_code == 65


def test_a_file_cut_short_is_an_error_in_pread_mode(path: Path) -> None:
    file = MappedFile(path, "pread")
    os.truncate(path, 100)
    with pytest.raises(InputChanged, match="now ends at byte 100"):
        file.view(50, 100)


def test_an_io_error_names_file_and_byte(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    file = MappedFile(path, "pread")
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(BadInput, match=r"data\.bin cannot be read at byte 300: Input/output error"):
        file.view(300, 10)


def test_short_reads_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: whole(fd, [buffers[0][:7]], at))
    assert MappedFile(path, "pread").view(3, 100).tobytes() == path.read_bytes()[3:103]


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="not a regular file"):
        MappedFile(tmp_path / "pipe")
    with pytest.raises(BadInput, match="not a regular file"):
        MappedFile(tmp_path)
    with pytest.raises(InputMissing):
        MappedFile(tmp_path / "nothing")


def test_a_file_that_may_not_be_read_is_a_matter_of_permission(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NoPermission):
        MappedFile(path)


def test_an_empty_file_maps(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    file = MappedFile(tmp_path / "empty")
    assert file.view(0, 0).size == 0
    assert file.describe(0).size == 0


def test_digests_tell_content_apart_and_not_names(path: Path, tmp_path: Path) -> None:
    first = MappedFile(path).describe(100)
    assert first.digest == MappedFile(path, "pread").describe(100).digest
    raw = bytearray(path.read_bytes())
    (tmp_path / "copy").write_bytes(raw)
    assert MappedFile(tmp_path / "copy").describe(100).digest == first.digest
    for at in (5, 100, len(raw) - 1):
        changed = bytearray(raw)
        changed[at] ^= 1
        (tmp_path / "copy").write_bytes(changed)
        assert MappedFile(tmp_path / "copy").describe(100).digest != first.digest
    assert first.name == "data.bin"
    assert first.inode == path.stat().st_ino


def test_descriptors_are_closed_with_the_last_reference(path: Path) -> None:
    gc.collect()  # what other tests left in tracebacks
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    files = [MappedFile(path) for _ in range(20)]
    views = [file.view(0, 10) for file in files]
    del files, views
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_long_range_is_prefetched_in_pieces_that_cover_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long").write_bytes(bytes(3 << 20))
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, start, length, _advice: asked.append((start, length)))
    MappedFile(tmp_path / "long").prefetch(5000, 2 << 20)
    assert asked[0][0] == PAGE
    assert all(a + n == b for (a, n), (b, _) in pairwise(asked))
    assert sum(asked[-1]) == 5000 + (2 << 20)
    assert max(n for _, n in asked) <= 1 << 20
