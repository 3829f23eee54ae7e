"""Workers on a simulated NFS: every chunk that counts is on the server, whole, and stays; who does it wrong is caught."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fingerprint_cases as cases
import pytest
import xxhash
from pools import HerePool
from runs import forget_jobs, fresh, through
from sim_nfs import SimNfs

from streamconv.cluster import worker
from streamconv.conversion import Options
from streamconv.engine import attaching, journal, run
from streamconv.engine.index_file import CommitRecord
from streamconv.engine.job import Job

#: no multiple of a page, as chunks of models are none
CHUNK = 3000


class Clients(HerePool):
    """Every worker is a client of its own, with what it knows of the job; the coordinator is another."""

    def __init__(self, order: str, nfs: SimNfs, seed: int) -> None:
        self._sites: dict[int, list[Any]] = {}
        self._nfs = nfs
        super().__init__(order, seed=seed, inside=self._as)
        self._faulty = True

    @contextmanager
    def _as(self, number: int) -> Iterator[None]:
        mine = self._sites.setdefault(number, [])
        before, worker._sites[:] = list(worker._sites), mine
        try:
            with self._nfs.on(number + 1):
                yield
        finally:
            self._sites[number] = list(worker._sites)
            worker._sites[:] = before


class Audit:
    """Looks at the server's files whenever a worker has reported, before anything else happens, and before the output is read back.

    Attributes
    ----------
    wrong : chunks that were not there as they were said to be
    """

    def __init__(self, part: Path) -> None:
        self.part, self.counted, self.wrong = part, list[CommitRecord](), 0

    def look(self) -> None:
        data = self.part.read_bytes()
        for s in self.counted:
            self.wrong += xxhash.xxh3_128_digest(data[s.offset : s.offset + s.length]) != s.digest


def audited(tmp_path: Path, seed: int, late: bool = False, **flags: bool) -> tuple[Audit, SimNfs, bool]:
    """A run on NFS; with ``late`` workers report what they have not written yet."""
    nfs = SimNfs(seed)
    job = cases.dense_gguf(tmp_path)
    job = replace(job, options=replace(job.options, chunk_bytes=CHUNK, threads=1))
    prepared, expected = fresh(job, job.options)
    audit = Audit(prepared.plan.part_path(0))
    real_hand_in, real_put, behind = run._Run.hand_in, attaching.Attached.put, list[Any]()

    def hand_in(self: run._Run, commits: Any, name: str) -> None:
        audit.counted += commits
        audit.look()
        real_hand_in(self, commits, name)

    def put(self: attaching.Attached, file: int, data: memoryview, offset: int) -> None:
        behind.append((self, file, bytes(data), offset))
        if len(behind) > 3:
            before = behind.pop(0)
            real_put(before[0], before[1], memoryview(before[2]), before[3])

    def damaged(_plan: object, _made: object, _go_on: object) -> list[Any]:
        audit.look()
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run._Run, "hand_in", hand_in)
        patch.setattr(run, "damaged", damaged)
        patch.setattr(journal, "is_network", lambda path: True)
        if late:
            patch.setattr(attaching.Attached, "put", put)
        with nfs.mounted(**flags):
            through(prepared, job.options, partial(Clients, nfs=nfs, seed=seed))
    nfs.end()
    forget_jobs()
    made = {str(f.path): f.path.read_bytes() for f in prepared.plan.files}
    return audit, nfs, made == expected


@pytest.mark.parametrize("n", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 8))])
def test_what_counts_is_on_the_server_and_stays_there(tmp_path: Path, seed: int, n: int) -> None:
    audit, nfs, is_same = audited(tmp_path, seed * n)
    assert audit.counted
    assert audit.wrong == 0
    assert is_same
    assert nfs.read_first == 0


@pytest.mark.parametrize("n", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 5))])
@pytest.mark.parametrize(
    "mistake",
    [
        {"dsync": False},
        pytest.param({"dsync": False, "write_only": False}, marks=pytest.mark.slow),
        pytest.param({"late": True}, marks=pytest.mark.slow),
    ],
    ids=["no O_DSYNC", "O_RDWR and no O_DSYNC", "reported before it is written"],
)
def test_the_simulation_catches(tmp_path: Path, seed: int, mistake: dict[str, bool], n: int) -> None:
    audit, _, _ = audited(tmp_path, seed * n, **mistake)
    assert audit.wrong > 0


@pytest.mark.parametrize("is_fresh", [True, False], ids=["asked anew", "stale"])
@pytest.mark.parametrize("who", ["worker", "coordinator"])
def test_who_has_lost_the_job_learns_it_from_the_server_and_not_from_what_it_has_in_its_cache(
    tmp_path: Path, seed: int, who: str, is_fresh: bool
) -> None:
    """And where nothing is asked for anew it does not, which the simulation shows."""
    nfs, plan = SimNfs(seed), cases.dense_gguf(tmp_path).plan(Options()).plan
    with pytest.MonkeyPatch.context() as patch, nfs.mounted(fresh=is_fresh):
        patch.setattr(journal, "is_network", lambda path: True)
        first = Job.open(plan)
        worker_of_first = attaching.Attached(plan, first.share())
        is_current = worker_of_first.is_current if who == "worker" else first.journal.still_ours
        client = 1 if who == "worker" else 0
        with nfs.on(client):
            assert is_current()
        with nfs.on(2):
            second = journal.Journal.open(plan.job_dir / "index.wal")
            assert second is not None
            second.take_over()
            second.close()
        with nfs.on(client):
            assert is_current() is not is_fresh
        first.close()
    nfs.end()


@pytest.mark.slow
def test_files_that_are_open_for_reading_too_are_read_before_they_are_written(tmp_path: Path, seed: int) -> None:
    """With O_DSYNC that harms nothing, but neighbours of a range get into the cache, and every border costs a read."""
    assert audited(tmp_path, seed, write_only=False)[1].read_first > 5


@pytest.mark.slow
def test_neighbours_in_a_page_are_lost_where_it_is_open_for_reading_and_not_synced(tmp_path: Path, seed: int) -> None:
    """The reading back repairs it: without it the output would be wrong."""
    lost = 0
    for n in range(4):
        (tmp_path / str(n)).mkdir()
        _, _, is_same = audited(tmp_path / str(n), seed + n, dsync=False, write_only=False)
        lost += not is_same
    assert lost
