"""Real schedulers and workers, which are killed and stopped: the same bytes every time, or a clear end that can be resumed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from dask_processes import SOON, Process, Processes, address, digests, is_busy, is_left, kill, wait_for
from gate import PLACES, Gate
from ledger import Ledger
from nursery import Nursery
from proxy import FAULTS, Proxy
from runs import Told
from seeing_models import make_seeing_model
from small_jobs import KINDS, arguments, made_by_threads, make_models

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


@pytest.fixture
def processes(tmp_path: Path, nursery: Nursery) -> Iterator[Processes]:
    found = Processes(tmp_path, nursery)
    yield found
    found.close()


@pytest.fixture
def real_processes(tmp_path: Path) -> Iterator[Processes]:
    """As a user starts them."""
    found = Processes(tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return make_models(tmp_path_factory.mktemp("models"), tiny_model)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[str, dict[str, str]]:
    return made_by_threads(model, tmp_path_factory.mktemp("expected"))


def ended(process: Process, processes: Processes, code: int = 0) -> None:
    assert process.wait(180) == code, processes.log("convert")


def is_running(folder: Path) -> bool:
    """Whether something was committed in the job below ``folder``."""
    return any(any(index.read_bytes()[8192:]) for index in folder.glob("*.streamconv/index.wal"))


def hold(processes: Processes, tmp_path: Path, at: str = "put") -> Gate:
    """Have the workers of all processes held at their second task, in the middle of ``at``."""
    gate = Gate(tmp_path / "gate", at)
    processes.env = gate.env
    return gate


def wait_for_workers(gate: Gate, n: int, folder: Path, converting: Process) -> None:
    """Until ``n`` of them are held, and what they made before is committed."""

    def are_held() -> bool:
        assert converting.poll() is None
        return len(gate.waiting()) >= n and is_running(folder)

    wait_for(are_held)


@pytest.mark.parametrize("job", KINDS)
def test_processes_of_this_machine_make_what_threads_make(
    real_processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]], job: str
) -> None:
    ended(real_processes.convert(*arguments(model, tmp_path / "o", job, "local:2")), real_processes)
    assert digests(tmp_path / "o") == expected[job]


def with_and_without(
    processes: Processes, tmp_path: Path, sources: list[Path], name: str, *more: str, command: str = "convert"
) -> tuple[dict[str, str], dict[str, str]]:
    """Digests of what a command makes with two workers, and of what it makes without."""
    made = []
    for cluster in ([], ["--cluster", "local:2"]):
        folder = tmp_path / f"o{len(made)}"
        folder.mkdir(exist_ok=True)
        given = [*map(str, sources), str(folder / name), *more, *cluster]
        ended(processes.convert(*given, command=command), processes)
        made.append(digests(folder / name if (folder / name).is_dir() else folder))
    assert made[0]
    return made[1], made[0]


def test_workers_make_what_an_older_output_does_not_have(processes: Processes, tmp_path: Path, model: Path) -> None:
    old = tmp_path / "old.gguf"
    ended(processes.convert(str(model / "a"), str(old), "--type", "Q4_K_S", "--manifest"), processes)
    made, expected = with_and_without(
        processes, tmp_path, [model / "a"], "x.gguf", "--type", "Q4_K_M", "--reuse", str(old), "--manifest"
    )
    assert made == expected
    assert processes.log("convert").count(f" copied from {old}, ") == 2


def test_a_model_and_its_projector_are_one_job_of_workers(processes: Processes, tmp_path: Path, data: Path) -> None:
    model = make_seeing_model(data, tmp_path / "m")
    made, expected = with_and_without(processes, tmp_path, [model], "x-{part}.gguf", "--type", "Q8_0")
    assert made == expected
    assert list(made) == ["x-mmproj.gguf", "x-model.gguf"]


def test_an_adapter_is_extracted_by_workers(processes: Processes, tmp_path: Path, model: Path) -> None:
    made, expected = with_and_without(
        processes, tmp_path, [model / "a", model / "b"], "x", "--rank", "4", command="extract-lora"
    )
    assert made == expected


@pytest.mark.parametrize(("job", "at"), [*zip(KINDS, PLACES, strict=True)])
def test_killed_and_stopped_workers_change_no_byte(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]], job: str, at: str
) -> None:
    gate, folder = hold(processes, tmp_path, at), tmp_path / "o"
    converting = processes.convert(*arguments(model, folder, job, "local:3"))
    wait_for_workers(gate, 3, folder, converting)
    ledger = Ledger(folder)
    ledger.look()
    killed, stopped, _ = gate.waiting()
    kill(killed, signal.SIGKILL)
    kill(stopped, signal.SIGSTOP)
    gate.open()
    wait_for(lambda: ledger.look() or converting.poll() is not None)
    ended(converting, processes)
    assert digests(folder) == expected[job]
    assert ledger.committed
    assert (ledger.wrong, ledger.lost) == (0, 0)


@pytest.mark.parametrize("at", PLACES)
def test_a_worker_that_was_stopped_until_all_is_over_harms_nothing(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]], at: str
) -> None:
    gate, file, folder = hold(processes, tmp_path, at), tmp_path / "scheduler.json", tmp_path / "o"
    processes.scheduler(file, SCHEDULER__WORKER_TTL="5s")
    stopped = processes.worker(file, "--no-nanny", name="stopped")
    converting = processes.convert(*arguments(model, folder, "plain", address(file)))
    wait_for_workers(gate, 1, folder, converting)
    kill(stopped.pid, signal.SIGSTOP)
    gate.open()
    processes.worker(file, "--no-nanny", name="other")
    ended(converting, processes)
    assert digests(folder) == expected["plain"]
    assert stopped.pid not in gate.passed()
    kill(stopped.pid, signal.SIGCONT)
    wait_for(lambda: stopped.pid in gate.passed())
    assert digests(folder) == expected["plain"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_behind_a_network_that_fails_is_replaced_and_harms_nothing_when_it_is_mended(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]], fault: str
) -> None:
    gate, file, folder = hold(processes, tmp_path), tmp_path / "scheduler.json", tmp_path / "o"
    processes.scheduler(file, SCHEDULER__WORKER_TTL="5s")
    host, port = address(file).removeprefix("tcp://").split(":")
    proxy = Proxy(host, int(port))
    cut_off = processes.worker(proxy.address, "--no-nanny", name="cut off")
    converting = processes.convert(*arguments(model, folder, "plain", address(file)))
    wait_for_workers(gate, 1, folder, converting)
    proxy.fail(fault)
    gate.open()
    processes.worker(file, "--no-nanny", name="other")
    ended(converting, processes)
    assert cut_off.pid in gate.passed()
    proxy.mend()
    wait_for(lambda: cut_off.poll() is not None or not is_busy(cut_off.pid))
    proxy.close()
    assert digests(folder) == expected["plain"]


def test_a_scheduler_that_is_started_again_goes_on_with_the_same_job(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]]
) -> None:
    gate, file, folder = hold(processes, tmp_path), tmp_path / "scheduler.json", tmp_path / "o"
    scheduler = processes.scheduler(file)
    processes.worker(file, "--no-nanny")
    converting = processes.convert(*arguments(model, folder, "plain", str(file)))
    wait_for_workers(gate, 1, folder, converting)
    scheduler.kill()
    scheduler.wait()
    processes.scheduler(file)
    processes.worker(file, "--no-nanny")
    gate.open()
    ended(converting, processes)
    assert digests(folder) == expected["plain"]


def test_a_scheduler_that_stays_away_ends_the_run_which_goes_on_without_one(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]]
) -> None:
    gate, file, folder = hold(processes, tmp_path), tmp_path / "scheduler.json", tmp_path / "o"
    scheduler = processes.scheduler(file)
    processes.worker(file, "--no-nanny")
    soon = f"{SOON}\npool.SCHEDULER_SECONDS = 3.0"
    converting = processes.convert(*arguments(model, folder, "plain", address(file)), prologue=soon)
    wait_for_workers(gate, 1, folder, converting)
    scheduler.kill()
    ended(converting, processes, 69)
    assert "no scheduler answers" in processes.log("convert")
    ended(processes.convert(*arguments(model, folder, "plain", None)), processes)
    assert "were finished by earlier runs" in processes.log("convert")
    assert digests(folder) == expected["plain"]


def test_a_killed_coordinator_leaves_no_process_behind_and_a_job_that_goes_on(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]]
) -> None:
    gate, folder = hold(processes, tmp_path), tmp_path / "o"
    converting = processes.convert(*arguments(model, folder, "plain", "local:2"))
    wait_for_workers(gate, 2, folder, converting)
    left = [psutil.Process(pid) for pid in processes.workers_of(converting)]
    assert {each.pid for each in left} == gate.waiting()
    converting.kill()
    converting.wait()
    wait_for(lambda: not any(map(is_left, left)))
    gate.open()
    ended(processes.convert(*arguments(model, folder, "plain", "local:1")), processes)
    assert "were finished by earlier runs" in processes.log("convert")
    assert digests(folder) == expected["plain"]


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


def test_a_signal_ends_the_run_in_order(processes: Processes, tmp_path: Path, model: Path) -> None:
    gate, folder = hold(processes, tmp_path), tmp_path / "o"
    converting = processes.convert(*arguments(model, folder, "plain", "local:2"))
    wait_for_workers(gate, 2, folder, converting)
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


class Answers(NoWorkers):
    """A client whose workers have answers to give, but for those that have stalled."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = SimpleNamespace(asyncio_loop=loop)

    def submit(self, *_: object, key: str, **__: object) -> SimpleNamespace:
        return SimpleNamespace(status="finished", key=key, release=lambda: None)

    async def gather(self, futures: list[SimpleNamespace], asynchronous: bool) -> list[dict[str, str]]:
        if futures[0].key == "stalled":
            await asyncio.sleep(3600)
        return [{"key": futures[0].key}]


def test_an_answer_of_a_worker_that_has_stalled_keeps_no_other_back(clock: list[float]) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        pool = DaskPool(lambda: Answers(loop), "", "tcp://there", Told())
        for key in ("stalled", "given"):
            pool.submit(Call(key, Task([]), {}, 0.0))
        found: list[Report] = []
        wait_for(lambda: found.extend(pool.reports(0.0)) or found)
        assert found == [Report("given", {"key": "given"})]
        clock[0] += 30.0
        wait_for(lambda: found.extend(pool.reports(0.0)) or len(found) > 1)
        assert found[1] == Report("stalled")
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(asyncio.sleep(0))  # what was cancelled ends
        loop.close()


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
    gate, file, folder = hold(processes, tmp_path), tmp_path / "scheduler.json", tmp_path / "o"
    processes.scheduler(file, SCHEDULER__ALLOWED_FAILURES="0")
    first = processes.worker(file, "--no-nanny")
    converting = processes.convert(*arguments(model, folder, "plain", address(file)))
    wait_for_workers(gate, 1, folder, converting)
    first.kill()
    processes.worker(file, "--no-nanny")
    gate.open()
    ended(converting, processes)
    assert digests(folder) == expected["plain"]


def test_workers_that_a_nanny_may_restart_for_files_that_are_mapped_are_told_of(
    processes: Processes, tmp_path: Path, model: Path, expected: dict[str, dict[str, str]]
) -> None:
    file, folder = tmp_path / "scheduler.json", tmp_path / "o"
    processes.scheduler(file)
    processes.worker(file, "--no-nanny", "--memory-limit", "300MiB")
    ended(processes.convert(*arguments(model, folder, "plain", address(file))), processes)
    assert "note: workers have a memory limit" in processes.log("convert")
    assert digests(folder) == expected["plain"]


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
