"""Real schedulers and workers, which are killed and stopped: the same bytes every time, or a clear end that can be resumed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from dask_processes import Processes, address, digests, kill, wait_for, workers_of
from runs import Told
from small_models import read_safetensors, write_safetensors

import streamconv
from streamconv.cluster.board import Call
from streamconv.cluster.dispatcher import Report
from streamconv.cluster.local_workers import LocalWorkers
from streamconv.cluster.tasks import Task
from streamconv.cluster.where import Where
from streamconv.errors import NetworkError, UsageError

pytest.importorskip("distributed", reason="Dask is not installed (pip install streamconv[dask])")

from distributed.client import ClosedClientError

from streamconv.cluster import dask_pool
from streamconv.cluster.dask_pool import DaskPool

pytestmark = pytest.mark.slow
#: of those that must strike before a job of a second or two is over
IN_TIME = pytest.mark.soak

TYPES = "Q4_K_M,IQ3_S,Q6_K"
CHUNKS = ("--chunk-size", "32KiB")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Three fine-tunes of a small model and the recipe that merges them."""
    root = tmp_path_factory.mktemp("models")
    tensors = read_safetensors(tiny_model / "model.safetensors")
    for at, name in enumerate("abc"):
        (root / name).mkdir()
        for path in tiny_model.iterdir():
            if path.is_file() and path.name != "model.safetensors":
                shutil.copy(path, root / name)
        changed = {n: (t, (v ^ (1 << at)) if v.dtype.kind == "u" and at else v) for n, (t, v) in tensors.items()}
        write_safetensors(root / name / "model.safetensors", changed)
    recipe = {
        "merge_method": "ties", "base_model": str(root / "a"), "parameters": {"weight": 0.5, "density": 0.6},
        "models": [{"model": str(root / "b")}, {"model": str(root / "c")}], "dtype": "bfloat16",
    }  # fmt: skip
    (root / "ties.yml").write_text(json.dumps(recipe))
    return root


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[str, dict[str, str]]:
    """Digests of what threads make of each job."""
    found = {}
    for job in JOBS:
        folder = tmp_path_factory.mktemp(job)
        streamconv.convert(model / JOBS[job][0], folder / JOBS[job][1], type=JOBS[job][2], chunk_bytes="32KiB")
        found[job] = digests(folder)
    return found


#: what is converted, to what, in which types
JOBS = {
    "types": ("a", "x-{type}.gguf", TYPES), "ties": ("ties.yml", "x.gguf", "Q4_K_M"), "plain": ("a", "x.gguf", "IQ3_S"),
}  # fmt: skip


def arguments(model: Path, folder: Path, job: str, cluster: str | None) -> list[str]:
    source, output, types = JOBS[job]
    folder.mkdir(exist_ok=True)
    given = ["--cluster", cluster] if cluster else []
    return [str(model / source), str(folder / output), "--type", types, *CHUNKS, *given]


def ended(process: subprocess.Popen[bytes], processes: Processes, code: int = 0) -> None:
    assert process.wait(180) == code, processes.log("convert")


def is_running(folder: Path) -> bool:
    """Whether something was committed in the job below ``folder``."""
    return any(any(index.read_bytes()[8192:]) for index in folder.glob("*.streamconv/index.wal"))


def is_begun(folder: Path, converting: subprocess.Popen[bytes]) -> bool:
    """The same, of a conversion that must not have ended."""
    assert converting.poll() is None
    return is_running(folder)


@pytest.mark.parametrize("job", JOBS)
def test_processes_of_this_machine_make_what_threads_make(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]], job: str
) -> None:
    ended(processes.convert(*arguments(model, tmp_path / "o", job, "local:2")), processes)
    assert digests(tmp_path / "o") == expected[job]


def assault(
    processes: Processes, tmp_path: Path, model: Path, job: str, rng: random.Random, expected: dict[str, str]
) -> int:
    """One job of four processes, some of which are killed or stopped at random moments; how many were."""
    folder = tmp_path / f"o{rng.randrange(10**9)}"
    converting = processes.convert(*arguments(model, folder, job, "local:4"))
    stopped, n = [], 0
    while converting.poll() is None:
        time.sleep(rng.uniform(0.3, 2.0))
        alive = [pid for pid in workers_of(converting) if pid not in stopped]
        if alive and n < 8:
            victim, n = rng.choice(alive), n + 1
            if rng.random() < 0.7 or len(stopped) > 1:
                kill(victim, signal.SIGKILL)
            else:
                kill(victim, signal.SIGSTOP)
                stopped.append(victim)
    ended(converting, processes)
    made = digests(folder)
    for pid in stopped:
        kill(pid, signal.SIGCONT)
    time.sleep(1.0 if stopped else 0.0)
    assert made == expected, rng
    assert digests(folder) == expected, rng
    return n


@pytest.mark.parametrize("job", JOBS)
def test_killed_and_stopped_workers_change_no_byte(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]], job: str, seed: int
) -> None:
    assault(processes, tmp_path, model, job, random.Random(seed), expected[job])


@pytest.mark.soak
def test_many_jobs_with_killed_workers(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]], seed: int, tell: object
) -> None:
    rng, n = random.Random(seed), 0
    for at in range(100 * int(os.environ.get("STREAMCONV_SOAK", "1000")) // 1000):
        job = [*JOBS][at % len(JOBS)]
        n += assault(processes, tmp_path, model, job, rng, expected[job])
    tell(f"{n} workers were killed or stopped")  # type: ignore[operator]


@IN_TIME
def test_a_worker_that_was_stopped_until_all_is_over_harms_nothing(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]]
) -> None:
    file = tmp_path / "scheduler.json"
    processes.scheduler(file, SCHEDULER__WORKER_TTL="5s")
    stopped = processes.worker(file, "--no-nanny", name="stopped")
    folder = tmp_path / "o"
    converting = processes.convert(*arguments(model, folder, "types", address(file)))
    wait_for(lambda: is_begun(folder, converting))
    kill(stopped.pid, signal.SIGSTOP)
    processes.worker(file, "--no-nanny", name="other")
    ended(converting, processes)
    assert digests(folder) == expected["types"]
    kill(stopped.pid, signal.SIGCONT)
    time.sleep(3.0)
    assert digests(folder) == expected["types"]


@IN_TIME
def test_a_scheduler_that_is_started_again_goes_on_with_the_same_job(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]]
) -> None:
    file, folder = tmp_path / "scheduler.json", tmp_path / "o"
    scheduler = processes.scheduler(file)
    processes.worker(file, "--no-nanny")
    converting = processes.convert(*arguments(model, folder, "types", str(file)))
    wait_for(lambda: is_begun(folder, converting))
    scheduler.kill()
    scheduler.wait()
    processes.scheduler(file)
    processes.worker(file, "--no-nanny")
    ended(converting, processes)
    assert digests(folder) == expected["types"]


@IN_TIME
def test_a_scheduler_that_stays_away_ends_the_run_which_goes_on_without_one(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]]
) -> None:
    file, folder = tmp_path / "scheduler.json", tmp_path / "o"
    scheduler = processes.scheduler(file)
    processes.worker(file, "--no-nanny")
    soon = "import streamconv.cluster.dask_pool as pool\npool.SCHEDULER_SECONDS = 3.0"
    converting = processes.convert(*arguments(model, folder, "types", address(file)), prologue=soon)
    wait_for(lambda: is_begun(folder, converting))
    scheduler.kill()
    ended(converting, processes, 69)
    assert "no scheduler answers" in processes.log("convert")
    ended(processes.convert(*arguments(model, folder, "types", None)), processes)
    assert "were finished by earlier runs" in processes.log("convert")
    assert digests(folder) == expected["types"]


@IN_TIME
def test_a_killed_coordinator_leaves_no_process_behind_and_a_job_that_goes_on(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]]
) -> None:
    folder = tmp_path / "o"
    converting = processes.convert(*arguments(model, folder, "types", "local:2"))
    wait_for(lambda: is_begun(folder, converting))
    left = workers_of(converting)
    assert left
    converting.kill()
    converting.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))
    ended(processes.convert(*arguments(model, folder, "types", "local:1")), processes)
    assert "were finished by earlier runs" in processes.log("convert")
    assert digests(folder) == expected["types"]


def test_a_worker_that_has_no_scheduler_yet_ends_with_the_coordinator() -> None:
    workers = LocalWorkers(1, 1, "tcp://127.0.0.1:1")
    process, scratch = workers._processes[0], Path(workers._scratch.name)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 1
    assert not scratch.exists()
    workers.close()


def test_workers_of_this_machine_run_nothing_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    workers = LocalWorkers(1, 1, "tcp://127.0.0.1:1")
    workers.close()
    with subprocess.Popen(
        [*workers._command[:5], "--help"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as helped:
        assert helped.stdout is not None
        assert b"--nthreads" in helped.stdout.read()
        assert helped.wait(60) == 0


@IN_TIME
def test_a_signal_ends_the_run_in_order(processes: Processes, tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "o"
    converting = processes.convert(*arguments(model, folder, "types", "local:2"))
    wait_for(lambda: is_begun(folder, converting))
    began = time.monotonic()
    kill(converting.pid, signal.SIGTERM)
    ended(converting, processes, -signal.SIGTERM)
    assert time.monotonic() < began + 30
    assert list(folder.glob("*.streamconv/index.wal"))


class NoWorkers:
    """A client of a scheduler that has workers now and then."""

    status = "running"
    scheduler = SimpleNamespace(address="tcp://10.0.0.1:1")

    def __init__(self) -> None:
        self.threads = 1

    def nthreads(self) -> dict[str, int]:
        return {"worker": self.threads}

    def submit(self, *_: object, **__: object) -> None:
        raise ClosedClientError

    def close(self, timeout: float) -> None:
        self.status = "closed"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds; every look takes one more."""
    now = [1000.0]

    def monotonic() -> float:
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(dask_pool, "time", SimpleNamespace(monotonic=monotonic, sleep=lambda seconds: None))
    return now


def test_workers_are_missed_though_no_call_waits_for_them(clock: list[float]) -> None:
    client, told = NoWorkers(), Told()
    pool = DaskPool(lambda: client, "", "tcp://there", told)
    assert any("not encrypted" in text for text in told.texts)
    client.threads, pool._counted = 0, 0.0
    assert pool.n_threads() == 0
    with pytest.raises(NetworkError, match="there are no workers"):
        pool.reports(2 * dask_pool.WORKER_SECONDS)
    assert clock[0] > 1000 + dask_pool.WORKER_SECONDS


def test_the_time_without_workers_does_not_add_up(clock: list[float]) -> None:
    client = NoWorkers()
    pool = DaskPool(lambda: client, "", "tcp://there", Told())
    pool._futures["key"] = SimpleNamespace(status="pending")
    for threads in (0, 1, 0):
        client.threads, pool._counted = threads, 0.0
        assert pool.n_threads() == threads
        assert list(pool.reports(0.5)) == []  # and no NetworkError
        clock[0] += dask_pool.WORKER_SECONDS


def test_a_call_that_meets_a_closed_connection_is_lost_and_no_error(clock: list[float]) -> None:
    client = NoWorkers()
    pool = DaskPool(lambda: client, "", "tcp://there", Told())
    pool.submit(Call("key", Task([]), {}, 0.0))
    assert pool.reports(0.5) == [Report("key")]


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [(None, NetworkError, "no scheduler answers"), ("[]", NetworkError, "has no address"),
     ('{"address": "tls://127.0.0.1:1"}', UsageError, "needs certificates")],
)  # fmt: skip
def test_a_file_without_a_usable_address_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, error: type[Exception], told: str
) -> None:
    monkeypatch.setattr(dask_pool, "SCHEDULER_SECONDS", 0.3)
    file = tmp_path / "scheduler.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(error, match=told), dask_pool.opened(Where(file=file), "", Told(), 1):
        pass


def test_a_scheduler_that_blames_tasks_for_dead_workers_is_no_obstacle(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]]
) -> None:
    file, folder = tmp_path / "scheduler.json", tmp_path / "o"
    processes.scheduler(file, SCHEDULER__ALLOWED_FAILURES="0")
    first = processes.worker(file, "--no-nanny")
    converting = processes.convert(*arguments(model, folder, "types", address(file)))
    wait_for(lambda: is_begun(folder, converting))
    first.kill()
    processes.worker(file, "--no-nanny")
    ended(converting, processes)
    assert digests(folder) == expected["types"]


def test_a_worker_with_other_kernels_is_refused_before_it_makes_anything(
    processes: Processes, tmp_path: Path, model: Path
) -> None:
    file, folder = tmp_path / "scheduler.json", tmp_path / "o"
    processes.scheduler(file)
    code = (
        "import streamconv.cluster.order as o; o.KERNEL_ABI = 99\nfrom dask.__main__ import main; import sys\n"
        f"sys.argv = ['dask', 'worker', '--scheduler-file', {str(file)!r}, '--no-nanny', '--no-dashboard']; main()"
    )
    processes.start("worker", ["-c", code], cwd=tmp_path)
    ended(processes.convert(*arguments(model, folder, "plain", address(file))), processes, 78)
    assert "kernels 99 instead of 1" in processes.log("convert")
    assert not is_running(folder)


def test_certificates_keep_others_out(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]]
) -> None:
    pytest.importorskip("cryptography", reason="makes the certificates")
    from distributed import Security

    security = Security.temporary()
    named = {"ca": security.tls_ca_file, "cert": security.tls_client_cert, "key": security.tls_client_key}
    for name, text in named.items():
        (tmp_path / f"{name}.pem").write_text(text)
    ca, cert, key = (str(tmp_path / f"{name}.pem") for name in named)
    tls = ("--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", key)
    file, folder = tmp_path / "scheduler.json", tmp_path / "o"
    processes.scheduler(file, "--protocol", "tls", *tls)
    processes.worker(file, "--no-nanny", *tls)
    given = arguments(model, folder, "plain", address(file))
    ended(processes.convert(*given), processes, 64)
    ended(processes.convert(*given, "--cluster-tls", f"{ca},{cert},{key}"), processes)
    assert digests(folder) == expected["plain"]
