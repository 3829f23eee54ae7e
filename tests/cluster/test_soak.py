"""A hundred jobs whose workers, coordinators and schedulers are killed and stopped at random moments: the same bytes every time."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from dask_processes import Process, Processes, address, digests, is_busy, is_left, kill, wait_for
from gate import Gate
from ledger import Ledger
from nursery import Nursery
from small_jobs import KINDS, arguments, made_by_threads, make_models

pytest.importorskip("distributed", reason="Dask is not installed (pip install streamconv[dask])")

SLICES = 10
JOBS = 100 * int(os.environ.get("STREAMCONV_SOAK", "0")) // 1000
WORKERS = 4
#: at most so many strikes at a job, and so many of those that make it wait
STRIKES, ONCE = 6, ("coordinator", "scheduler", "worker stopped")


class Field:
    """Where one slice of the jobs is attacked; counts the ``strikes`` by kind."""

    def __init__(
        self, folder: Path, nursery: Nursery, model: Path, expected: dict[str, dict[str, str]], rng: random.Random
    ) -> None:
        self.folder, self.model, self.expected, self.rng = folder, model, expected, rng
        self.processes = Processes(folder, nursery)
        self.processes.env = Gate(folder / "gate", after=1 << 30, slow=rng.uniform(0.02, 0.1)).env
        self.strikes: Counter[str] = Counter()
        self.looks = 0
        self.file = folder / "scheduler.json"
        self.scheduler: Process | None = None
        self.workers: list[Process] = []
        self.stopped: list[psutil.Process] = []

    def attack(self, number: int, job: str, is_local: bool) -> None:
        """Run one job to its end, whatever is done to it."""
        folder = self.folder / f"o{number}"
        if not is_local:
            self.stand_up()
        begin = self.begun(folder, job, "local:4" if is_local else str(self.file))
        converting, ledger, done = begin(), Ledger(folder), Counter[str]()
        # One in four is struck while its workers start, the others from the first commit on.
        next_strike = time.monotonic() + (self.rng.uniform(0.0, 5.0) if self.rng.random() < 0.25 else 60.0)
        strikes = self.rng.randint(1, STRIKES)
        while converting.poll() is None:
            time.sleep(0.1)
            ledger.look()
            if not is_local:
                self.top_up()  # workers notice after a while that their scheduler is gone, and end
            if ledger.committed and not done.total():
                next_strike = min(next_strike, time.monotonic() + self.rng.uniform(0.0, 0.5))
            if time.monotonic() >= next_strike and done.total() < strikes:
                next_strike = time.monotonic() + self.rng.uniform(0.05, 1.5)
                what = self.strike(converting, is_local, done)
                done[what] += what != ""
                if what and ledger.committed:
                    self.strikes["of these, after a first commit"] += 1
                if what == "coordinator":
                    ledger.look()
                    converting = begin()
        assert converting.returncode == 0, self.processes.log("convert")
        assert digests(folder) == self.expected[job], (number, done)
        self.wake()
        assert digests(folder) == self.expected[job], (number, done)
        assert (ledger.wrong, ledger.lost) == (0, 0), (number, done)
        assert not list(folder.glob("*.streamconv/*"))
        self.strikes += done
        self.looks += ledger.looks

    def begun(self, folder: Path, job: str, cluster: str) -> Callable[[], Process]:
        return lambda: self.processes.convert(*arguments(self.model, folder, job, cluster))

    def stand_up(self) -> None:
        """Have a scheduler and as many workers as there are to be."""
        if self.scheduler is None:
            self.scheduler = self.processes.scheduler(self.file, SCHEDULER__WORKER_TTL="5s")
        self.top_up()

    def top_up(self) -> None:
        self.workers = [w for w in self.workers if w.poll() is None]
        while len(self.workers) < WORKERS + len(self.stopped):
            self.workers.append(self.processes.worker(self.file, "--no-nanny"))

    def strike(self, converting: Process, is_local: bool, done: Counter[str]) -> str:
        """One blow; what it was, or "" where nothing could be hit."""
        kinds = (
            ["worker killed"] * 5 + ["worker stopped"] * 2 + ["coordinator"] * 2 + ["scheduler"] * (2 * (not is_local))
        )
        what = self.rng.choice([kind for kind in kinds if not (kind in ONCE and done[kind])])
        if what == "coordinator":
            converting.kill()
            converting.wait()
        elif what == "scheduler":
            assert self.scheduler is not None
            self.scheduler.kill()
            self.scheduler.wait()
            self.scheduler = self.processes.scheduler(
                self.file, "--port", address(self.file).rpartition(":")[2], SCHEDULER__WORKER_TTL="5s"
            )
        else:
            alive = (
                self.processes.workers_of(converting) if is_local else [w.pid for w in self.workers if w.poll() is None]
            )
            alive = [pid for pid in alive if pid not in {each.pid for each in self.stopped}]
            if not alive:
                return ""
            kill(victim := self.rng.choice(alive), signal.SIGKILL if what == "worker killed" else signal.SIGSTOP)
            if what == "worker stopped":
                self.stopped.append(psutil.Process(victim))
        return what

    def wake(self) -> None:
        """Let those that were stopped go on, now that the output has its name: they do nothing that counts, and end or rest."""
        left = [each for each in self.stopped if is_left(each)]
        for each in left:
            each.resume()
        self.strikes["of these, continued after the output had its name"] += len(left)
        wait_for(lambda: not any(is_left(each) and is_busy(each.pid) for each in left))
        self.stopped.clear()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    model = make_models(tmp_path_factory.mktemp("models"), tiny_model)
    return model, made_by_threads(model, tmp_path_factory.mktemp("expected"))


@pytest.fixture
def field(
    tmp_path: Path, nursery: Nursery, models: tuple[Path, dict[str, dict[str, str]]], seed: int, number: int
) -> Iterator[Field]:
    found = Field(tmp_path, nursery, *models, random.Random(f"{seed}/{number}"))
    yield found
    found.processes.close()


@pytest.mark.soak
@pytest.mark.parametrize("number", range(SLICES))
def test_jobs_under_attack_make_the_same_bytes(field: Field, number: int, tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    numbers = range(number, max(JOBS, SLICES), SLICES)
    for at in numbers:
        field.attack(at, [*KINDS][at % len(KINDS)], is_local=at % 5 < 3)
    told = ", ".join(f"{n} {what}" for what, n in sorted(field.strikes.items()))
    tell(f"{len(numbers)} jobs in {time.monotonic() - began:.0f} s, {field.looks} looks at the index; {told}")
