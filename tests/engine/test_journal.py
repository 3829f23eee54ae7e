"""The write-ahead index: what it promises after kills, torn writes and bit rot."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import zlib
from pathlib import Path

import pytest

from streamconv.engine import files
from streamconv.engine.index_file import CLEAN, PUBLISHING, RUNNING, CommitRecord, read_progress
from streamconv.engine.journal import Journal
from streamconv.engine.slots import Slots
from streamconv.errors import PlanDiffers, WriteFailed

PRINT = bytes(range(32))


def _commit(chunk: int, **values: float) -> CommitRecord:
    return CommitRecord(chunk, 0, chunk * 100, 100, 4, bytes([chunk]) * 16, **values)  # type: ignore[arg-type]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.create(tmp_path / "index.wal", 5, PRINT)


def _reopened(journal: Journal) -> Journal:
    journal.close()
    again = Journal.open(journal.path)
    assert again is not None
    return again


def test_a_new_index_has_its_full_size_and_every_slot_pending(journal: Journal) -> None:
    assert journal.path.stat().st_size == 8192 + 5 * 128
    assert list(journal.commits()) == []


def test_stamps_survive_reopening_with_all_their_values(journal: Journal) -> None:
    journal.commit([_commit(3, sum_squared_error=1.5, max_error=0.25, nonfinite=7), _commit(0)])
    again = _reopened(journal)
    assert [s.chunk for s in again.commits()] == [0, 3]
    kept = list(again.commits())[1]
    assert (kept.sum_squared_error, kept.max_error, kept.nonfinite) == (1.5, 0.25, 7)
    assert (kept.offset, kept.length, kept.rows, kept.digest) == (300, 100, 4, bytes([3]) * 16)


def test_every_single_bit_flip_in_a_slot_makes_that_chunk_pending_and_no_other(journal: Journal) -> None:
    journal.commit(_commit(i) for i in range(5))
    whole = journal.path.read_bytes()
    at = 8192 + 2 * 128
    for bit in range(128 * 8):
        damaged = bytearray(whole)
        damaged[at + bit // 8] ^= 1 << bit % 8
        journal.path.write_bytes(damaged)
        again = _reopened(journal)
        assert [s.chunk for s in again.commits()] == [0, 1, 3, 4], f"bit {bit}"
        assert again.damaged_slots() == 1
        journal = again


def test_a_torn_header_falls_back_to_the_other_page(journal: Journal) -> None:
    journal.mark(CLEAN)
    newest = journal.header.generation
    journal.close()
    raw = bytearray(journal.path.read_bytes())
    at = newest % 2 * 4096
    raw[at : at + 512] = bytes(512)
    journal.path.write_bytes(raw)
    again = Journal.open(journal.path)
    assert again is not None
    assert again.header.generation == newest - 1


def test_both_headers_damaged_means_no_index(journal: Journal) -> None:
    journal.close()
    raw = bytearray(journal.path.read_bytes())
    raw[:8192] = bytes(8192)
    journal.path.write_bytes(raw)
    assert Journal.open(journal.path) is None


def of_version(path: Path, version: int, page: int = 1) -> None:
    """Let a header page of the index at ``path`` be of another format, whole and sealed as every format seals it."""
    raw = bytearray(path.read_bytes())
    at = page * 4096
    raw[at : at + 4092] = struct.pack("<4sI", b"SCVJ", version) + os.urandom(4084)
    raw[at + 4092 : at + 4096] = struct.pack("<I", zlib.crc32(raw[at : at + 4092]))
    path.write_bytes(raw)


@pytest.mark.parametrize("page", [0, 1])
def test_an_index_of_a_later_version_is_refused_by_name_and_not_taken_for_damaged(journal: Journal, page: int) -> None:
    of_version(journal.path, 7, page)
    for use in (Journal.open, read_progress, lambda path: journal.still_ours()):
        with pytest.raises(PlanDiffers, match=r"index\.wal was written by .* format 7, this version reads 1") as caught:
            use(journal.path)
        assert caught.value.exit_code == 78


def test_a_version_number_that_only_rotted_is_damage(journal: Journal) -> None:
    raw = bytearray(journal.path.read_bytes())
    raw[4096 + 4] ^= 2
    journal.path.write_bytes(raw)
    assert Journal.open(journal.path) is None


@pytest.mark.parametrize("size", [0, 1, 4096, 8192 + 5 * 128 - 1, 8192 + 5 * 128 + 1])
def test_an_index_of_the_wrong_length_is_not_used(journal: Journal, size: int) -> None:
    journal.close()
    os.truncate(journal.path, size)
    assert Journal.open(journal.path) is None
    assert read_progress(journal.path) is None


def test_slots_of_another_job_are_not_believed(journal: Journal, tmp_path: Path) -> None:
    other = Journal.create(tmp_path / "other.wal", 5, PRINT)
    other.commit([_commit(1)])
    raw = bytearray(journal.path.read_bytes())
    raw[8192:] = other.path.read_bytes()[8192:]
    journal.path.write_bytes(raw)
    assert list(_reopened(journal).commits()) == []


def test_an_index_on_a_bad_sector_is_an_error_and_no_signal(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.commit([_commit(1)])

    class BadDisk:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def pread(self, fd: int, size: int, offset: int) -> bytes:
            if offset >= 8192:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return os.pread(fd, size, offset)

    monkeypatch.setattr(files, "os", BadDisk())
    for use in (lambda: list(journal.commits()), journal.damaged_slots):
        with pytest.raises(WriteFailed, match="read of 640 bytes at offset 8,192 failed") as caught:
            use()
        assert caught.value.exit_code == 74
    assert read_progress(journal.path) is None


def mappings_of(path: Path) -> list[str]:
    return [line.split()[1] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here")
def test_slots_are_read_through_a_shared_mapping_that_cannot_be_written(journal: Journal) -> None:
    journal.commit([_commit(2)])
    assert [s.chunk for s in journal.commits()] == [2]
    assert mappings_of(journal.path) == ["r--s"]
    journal.commit([_commit(4)])
    assert [s.chunk for s in journal.commits()] == [2, 4], "what pwrite stores shows in the mapping"
    journal.close()
    assert mappings_of(journal.path) == []


def test_an_index_that_is_cut_under_a_run_is_an_error_and_no_signal(journal: Journal) -> None:
    journal.commit(_commit(i) for i in range(5))
    assert len(list(journal.commits())) == 5
    os.truncate(journal.path, 8192 + 3 * 128)
    with pytest.raises(WriteFailed, match=r"index\.wal was truncated to 8,576 bytes by another program") as caught:
        list(journal.commits())
    assert caught.value.exit_code == 74


def test_pages_of_a_mapping_that_cannot_be_read_are_an_error_and_no_signal(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bad:
        def madvise(self, advice: int) -> None:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    slots = Slots(os.open(journal.path, os.O_RDONLY), 8192, 5, journal.path)
    monkeypatch.setattr(slots, "_mapping", Bad())
    with pytest.raises(WriteFailed, match="cannot be read: Bad address"):
        slots.read()


@pytest.mark.parametrize("what", ["mmap", "madvise"])
def test_where_a_system_cannot_map_or_not_bring_pages_in_slots_are_read(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    class Old(mmap.mmap):
        madvise = refuse

    monkeypatch.setattr(mmap, "mmap", refuse if what == "mmap" else Old)
    journal.commit([_commit(2)])
    assert [s.chunk for s in journal.commits()] == [2]


def test_a_new_index_has_all_its_blocks_so_that_a_full_disk_is_met_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.wal"
    many = Journal.create(path, 10_000, PRINT)
    assert path.stat().st_blocks * 512 >= path.stat().st_size == 8192 + 10_000 * 128
    many.close()

    class FullDisk:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def pwrite(self, fd: int, data: bytes, offset: int) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "os", FullDisk())
    with pytest.raises(WriteFailed, match="No space left") as caught:
        Journal.create(tmp_path / "new.wal", 10_000, PRINT)
    assert caught.value.exit_code == 74
    assert not (tmp_path / "new.wal").exists()


def test_a_run_that_lost_the_job_notices_before_it_stamps(journal: Journal) -> None:
    second = Journal.open(journal.path)
    assert second is not None
    second.take_over()
    assert second.still_ours()
    assert not journal.still_ours()


def test_a_run_whose_header_is_written_over_by_an_earlier_one_keeps_the_job_and_all_others_lose_it(
    journal: Journal,
) -> None:
    late, *others = [_opened(journal) for _ in range(2)]
    for run in others:
        run.take_over()
    while others[-1].header.generation % 2 != (late.header.generation + 1) % 2 or len(others) < 3:
        others.append(_opened(journal))
        others[-1].take_over()
    late.take_over()  # it read the index before the others, and writes into the page of the last of them
    newest = read_progress(journal.path)
    assert newest is not None
    assert newest.header.nonce == others[-2].header.nonce
    assert others[-1].still_ours()
    assert [run.still_ours() for run in (late, journal, *others)] == [False] * (len(others) + 1) + [True]


def _opened(journal: Journal) -> Journal:
    opened = Journal.open(journal.path)
    assert opened is not None
    return opened


def test_a_removed_index_is_not_ours_any_more(journal: Journal) -> None:
    journal.path.unlink()
    assert not journal.still_ours()


def test_an_index_that_another_run_began_anew_is_not_ours_any_more(journal: Journal) -> None:
    journal.path.unlink()
    second = Journal.create(journal.path, 5, PRINT)
    assert second.still_ours()
    assert not journal.still_ours()


def test_states_are_kept_and_publishing_survives_a_take_over(journal: Journal) -> None:
    journal.mark(PUBLISHING)
    again = _reopened(journal)
    again.take_over()
    assert again.header.state == PUBLISHING
    again.mark(CLEAN)
    again.take_over()
    assert again.header.state == RUNNING
    assert again.header.clean_generation == again.header.generation - 1


def test_progress_is_readable_while_a_run_holds_the_index(journal: Journal) -> None:
    journal.commit([_commit(4)])
    found = read_progress(journal.path)
    assert found is not None
    assert (found.header.n_slots, found.n_bytes, [s.chunk for s in found.commits]) == (5, 100, [4])


def test_an_index_from_before_inputs_were_recorded_is_read_on(journal: Journal, tmp_path: Path) -> None:
    assert _reopened(journal).header.inputs == bytes(16)
    other = _reopened(Journal.create(tmp_path / "other.wal", 5, PRINT, b"i" * 16))
    other.take_over()
    assert _reopened(other).header.inputs == b"i" * 16


def test_forgotten_chunks_are_pending_again(journal: Journal) -> None:
    journal.commit(_commit(i) for i in range(5))
    journal.forget([1, 2])
    assert [s.chunk for s in _reopened(journal).commits()] == [0, 3, 4]


def test_whose_the_index_is_is_asked_by_opening_it_anew(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS an open file may show contents that are up to a minute old."""
    old = journal.path.read_bytes()
    second = Journal.open(journal.path)
    assert second is not None
    second.take_over()

    class Stale:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def pread(self, fd: int, size: int, offset: int) -> bytes:
            return old[offset : offset + size] if fd == journal._fd else os.pread(fd, size, offset)

    monkeypatch.setattr(files, "os", Stale())
    assert not journal.still_ours()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc here")
def test_a_new_index_is_written_under_the_name_that_others_read_it_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FUSE may cache each name of a file by itself: what is written under the temporary one would not show."""
    monkeypatch.setattr(files, "rename_with", lambda flag, old, new: False)
    made = Journal.create(tmp_path / "index.wal", 5, PRINT)
    assert os.readlink(f"/proc/self/fd/{made._fd}") == str(tmp_path / "index.wal")
