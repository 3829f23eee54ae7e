"""Power cuts: whatever the disk is left with, no slot lies and the next run makes the right result."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from streamconv import cli
from streamconv.engine import files, job, run
from streamconv.engine.plan import Plan

from .jobs import KINDS, SOAK, Bench
from .power import Call, Disk, recording

SLOW = pytest.mark.slow
Tell = Callable[[str], None]


def recorded(bench: Bench, *more: str) -> list[Call]:
    """What the command does to the disk, in this process."""
    with recording(bench.root) as calls:
        assert cli.main([*bench.command, "--quiet", *more]) == 0
    return calls


def cuts(bench: Bench, n: int, rng: random.Random, again: int = 10) -> list[str]:
    """What is wrong after each of ``n`` power cuts at random calls of the job; every ``again``-th is followed by another one."""
    before, found = Disk(bench.root), []
    calls = recorded(bench)
    left = sorted(rng.randint(0, len(calls)) for _ in range(n))
    for at in range(len(calls) + 1):
        while left and left[0] == at:
            left.pop(0)
            before.leave(bench.root, rng)
            where = f"{bench.kind}, power cut after call {at} of {len(calls)}"
            found += bench.violations(where, ended=at == len(calls))
            if len(left) % again == 0:
                found += _second_cut(bench, rng, where)
            found += bench.finish(where, lambda: _main(bench))
        if at < len(calls):
            before.take(calls[at])
    return found


def wrong_right_after_a_cut(bench: Bench, rng: random.Random, each: int = 4) -> list[str]:
    """What is wrong after ``each`` power cuts at every call of the job; nothing is finished."""
    disk, found = Disk(bench.root), []
    calls = recorded(bench)
    for n, call in enumerate(calls, 1):
        disk.take(call)
        # Only at the end it is wrong if names are missing, so there it is worth more tries.
        for _ in range(each if n < len(calls) else 4 * each):
            disk.leave(bench.root, rng)
            found += bench.violations(f"{bench.kind}, power cut after call {n} of {len(calls)}", ended=n == len(calls))
    return found


def _second_cut(bench: Bench, rng: random.Random, where: str) -> list[str]:
    disk = Disk(bench.root)
    calls = recorded(bench)
    for call in calls[: rng.randint(0, len(calls))]:
        disk.take(call)
    disk.leave(bench.root, rng)
    return bench.violations(f"{where}, and another one")


def _main(bench: Bench, *more: str) -> tuple[int, str]:
    return cli.main([*bench.command, "--quiet", *more]), ""


def numbers() -> list[object]:
    """1000 in all are asked for; half as many again are made."""
    return [
        *(pytest.param(kind, 5, id=f"{kind}-some") for kind in ("one file", "folder")),
        *(pytest.param(kind, SOAK // 4 if SOAK else 12, marks=SLOW, id=f"{kind}-many") for kind in KINDS),
    ]


@pytest.mark.parametrize(("bench", "n"), numbers(), indirect=["bench"])
def test_a_power_cut_costs_work_at_most(bench: Bench, n: int, seed: int, tell: Tell) -> None:
    found = cuts(bench, n, random.Random(f"{seed} {bench.kind}"))
    tell(f"{n} power cuts ({bench.kind}), every tenth followed by another: {len(found)} wrong, seed {seed}")
    assert found == []


@pytest.mark.parametrize(("bench", "n"), numbers(), indirect=["bench"])
def test_a_power_cut_while_another_output_is_replaced_costs_work_at_most(
    bench: Bench, n: int, seed: int, tell: Tell
) -> None:
    """Begun over the finished output of another plan and over its unfinished job."""
    rng = random.Random(f"{seed} {bench.kind} forced")
    assert cli.main([*bench.command, *_another(bench), "--quiet"]) == 0
    bench.job.mkdir()
    (bench.job / "index.wal").write_bytes(b"SCVJ rubbish")
    found = cuts_over(bench, n, rng)
    tell(f"{n} power cuts while an output is replaced ({bench.kind}): {len(found)} wrong, seed {seed}")
    assert found == []


def _another(bench: Bench) -> list[str]:
    """Options that make another plan with files of the same names."""
    return ["--model-name", "other"] if ".gguf" in bench.out.name else ["--type", "F32"]


def cuts_over(bench: Bench, n: int, rng: random.Random) -> list[str]:
    """As ``cuts``, but what lies there under the final names may be the old output."""
    old = Disk(bench.root)
    calls = recorded(bench, "--force")
    found = []
    for at in sorted(rng.randint(0, len(calls)) for _ in range(n)):
        disk = old.copy()
        for call in calls[:at]:
            disk.take(call)
        disk.leave(bench.root, rng)
        where = f"{bench.kind}, power cut after call {at} of {len(calls)} of --force"
        found += [v for v in bench.violations(where) if "committed" in v]
        found += bench.finish(where, lambda: _main(bench, "--force"))
    return found


# The suite itself is tested: classic mistakes, each of which it must report.


def stamp_before_the_data_barrier(patch: pytest.MonkeyPatch) -> None:
    real = run._Run._commit

    def wrong(self: run._Run, group: list) -> None:  # type: ignore[type-arg]
        self.job.journal.commit(group)
        real(self, group)

    patch.setattr(run._Run, "_commit", wrong)


def rename_before_sync(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: job.Job) -> None:
        plan: Plan = self.plan
        files.pwrite_all(self.part_fds[0], plan.files[0].header, 0, plan.part_path(0))
        files.publish(plan.part_path(0), plan.files[0].path)
        files.sync_data(self.part_fds[0], plan.files[0].path)
        self.discard()

    patch.setattr(job.Job, "publish", wrong)


def no_sync_of_folders(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "sync_dir", lambda path: None)


def header_without_barrier(patch: pytest.MonkeyPatch) -> None:
    real = files.sync_data
    patch.setattr(files, "sync_data", lambda fd, path: None if path.suffix == ".part" else real(fd, path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "bug", [stamp_before_the_data_barrier, rename_before_sync, no_sync_of_folders, header_without_barrier]
)
def test_the_suite_catches_a_wrong_order_of_writes(
    bench: Bench, bug: Callable[[pytest.MonkeyPatch], None], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wrong_right_after_a_cut(bench, random.Random(seed)) == []
    bug(monkeypatch)
    rng = random.Random(seed)
    for _ in range(4):  # the moment in which a cut shows it may be a single call
        bench.clean()
        if wrong_right_after_a_cut(bench, rng):
            return
    pytest.fail("the mistake was not reported")
