"""A pool of Dask workers: those of a scheduler that was started elsewhere, or processes of this machine for this job only."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster, Security
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError

from ..engine.run import Reporter
from ..errors import NetworkError, StreamconvError
from . import worker
from .board import Call
from .dispatcher import Report
from .local_workers import LocalWorkers
from .where import Where

#: how long a scheduler may be away, and how long there may be no worker
SCHEDULER_SECONDS, WORKER_SECONDS = 120.0, 600.0
_CONNECT_SECONDS = 5.0
_POLL_SECONDS = 0.02
#: between two questions how many workers there are
_COUNT_SECONDS = 2.0
#: how long an answer may take that a worker has
_RESULT_SECONDS = 30.0
#: who waits for longer says so
_SAID_SECONDS = 10.0
#: of the scheduler that is started here: a worker that dies is not the fault of what it did, a silent one is not waited for
_OWN = {
    "distributed.scheduler.allowed-failures": 1000,
    "distributed.scheduler.worker-ttl": "30s",
}


class DaskPool:
    """See ``dispatcher.Pool``.

    Parameters
    ----------
    connect : a new client; raises OSError where no scheduler answers
    order : what workers are told of the job
    name : of the cluster, for messages
    local : workers that were started here, if they were
    """

    def __init__(
        self, connect: Callable[[], Any], order: str, name: str, reporter: Reporter, local: LocalWorkers | None = None
    ) -> None:
        self._connect, self._order, self._name, self._reporter = connect, order, name, reporter
        self._local, self._has_worked = local, False
        self._client: Any = None
        self._futures: dict[str, Any] = {}
        self._coming: dict[str, tuple[Future[Any], float]] = {}
        self._counted, self._n_threads = 0.0, 0
        self._away = self._alone = 0.0
        self._said: set[str] = set()
        while not self._is_up():
            time.sleep(_POLL_SECONDS * 10)
        while not self.n_threads():
            self._miss_workers()
            time.sleep(_POLL_SECONDS * 10)

    def n_threads(self) -> int:
        """See ``dispatcher.Pool``."""
        if not self._is_up():
            return 0
        if time.monotonic() >= self._counted + _COUNT_SECONDS or not self._n_threads:
            with suppress(OSError, RuntimeError):  # it has gone just now
                self._n_threads = sum(self._client.nthreads().values())
            if self._n_threads:
                self._alone = 0.0
            self._counted = time.monotonic()
            self._has_worked |= self._n_threads > 0
            if self._local is not None:
                self._local.look_after(self._has_worked)
        return self._n_threads

    def memory_limits(self) -> set[int]:
        """Limits of memory at which workers are stopped or restarted, 0 where there are none; as far as can be told."""
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        except (OSError, RuntimeError, TypeError):
            return set()
        return {int(each.get("memory_limit") or 0) for each in workers}

    def submit(self, call: Call) -> None:
        """See ``dispatcher.Pool``."""
        self._futures[call.key] = None
        with suppress(ClosedClientError):  # it has gone just now, and the call with it
            self._futures[call.key] = self._client.submit(
                worker.carry_out, self._order, dict(call.what), key=call.key, pure=False
            )

    def reports(self, seconds: float) -> Sequence[Report]:
        """See ``dispatcher.Pool``."""
        until = time.monotonic() + seconds
        while True:
            found = [r for key in list(self._futures) if (r := self._report(key)) is not None]
            self._is_up()
            if not self._n_threads:
                self._miss_workers()
            if found or time.monotonic() >= until:
                return found
            time.sleep(_POLL_SECONDS)

    def cancel(self, keys: Sequence[str]) -> None:
        """See ``dispatcher.Pool``."""
        for key in keys:
            future = self._forget(key)
            if future is not None:
                with suppress(OSError, RuntimeError, TimeoutError):
                    future.release()

    def close(self) -> None:
        """Leave the workers alone."""
        if self._client is not None:
            with suppress(Exception):
                self._client.close(timeout=_CONNECT_SECONDS)

    def _report(self, key: str) -> Report | None:
        future = self._futures[key]
        status = "lost" if future is None else future.status
        if status == "pending":
            return None
        coming = self._coming_in(key, future) if status == "finished" else None
        if coming is not None and not coming.done():
            return None
        self._forget(key)
        if status not in ("finished", "error"):  # cancelled, lost: with the scheduler
            return Report(key)
        try:
            return Report(key, future.result() if coming is None else coming.result()[0])
        except (KilledWorker, CommClosedError, OSError, TimeoutError):
            return Report(key)
        except Exception as e:
            if type(e).__name__ in ("CancelledError", "FutureCancelledError", "FuturesCancelledError", "TimeoutError"):
                return Report(key)
            return Report(key, error=_unfit(e))

    def _coming_in(self, key: str, future: Any) -> Future[Any]:
        """The answer that a worker has; not waited for, as that worker may have stalled, while others have answers, too."""
        if key not in self._coming:
            gathering = self._client.gather([future], asynchronous=True)
            try:
                coming = asyncio.run_coroutine_threadsafe(gathering, self._client.loop.asyncio_loop)
            except RuntimeError as e:  # it has gone just now
                gathering.close()
                coming = Future()
                coming.set_exception(OSError(str(e)))
            self._coming[key] = coming, time.monotonic()
        coming, since = self._coming[key]
        if not coming.done() and time.monotonic() >= since + _RESULT_SECONDS:
            coming.cancel()
        return coming

    def _forget(self, key: str) -> Any:
        """The future of ``key``, which is of no use any more."""
        if key in self._coming:
            self._coming.pop(key)[0].cancel()
        return self._futures.pop(key, None)

    def _is_up(self) -> bool:
        """Whether there is a scheduler; looks for one where there is none.

        Raises
        ------
        NetworkError : there has been none for too long
        """
        if self._client is not None and self._client.status == "running":
            self._away = 0.0
            return True
        now = time.monotonic()
        self._away = self._away or now
        self._n_threads = 0
        if self._client is not None and self._client.status == "connecting":
            return False  # it tries for some seconds
        if self._client is not None:
            self._say(
                "the scheduler does not answer any more; waiting for it to come back, with what is committed kept"
            )
        elif now - self._away >= _SAID_SECONDS:
            self._say(f"{self._name}: no scheduler answers; waiting for one")
        error: Exception | None = None
        try:
            self.close()
            self._client = self._connect()
        except (OSError, ValueError) as e:
            self._client, error = None, e
        if self._client is None and now - self._away >= SCHEDULER_SECONDS:
            raise NetworkError(
                f"--cluster {self._name}: no scheduler answers ({error})",
                "Start one, or leave --cluster out: the same command goes on from what is committed.",
            )
        if self._client is not None and _is_open(self._client.scheduler.address):
            self._say(f"{self._name} is not encrypted: anyone who reaches that port can run programs as its user")
        return self._client is not None

    def _miss_workers(self) -> None:
        """Count the seconds without any worker."""
        if self.n_threads():
            return
        now = time.monotonic()
        self._alone = self._alone or now
        if now - self._alone >= _SAID_SECONDS:
            self._say("there are no workers; waiting for some")
        if now - self._alone >= WORKER_SECONDS:
            raise NetworkError(
                f"--cluster {self._name}: there are no workers",
                "Start some, or leave --cluster out: the same command goes on from what is committed.",
            )

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._reporter.message(f"note: {text}")


def _unfit(e: Exception) -> StreamconvError:
    return NetworkError(
        f"a worker cannot be used: {type(e).__name__}: {e}",
        "All workers need the same environment as this process, with streamconv in it; then run the same command again.",
    )


@contextmanager
def opened(where: Where, order: str, reporter: Reporter, threads_each: int) -> Iterator[DaskPool]:
    """The workers that ``where`` names; those that are started here have ``threads_each``.

    Raises
    ------
    NetworkError : there are none
    """
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if where.n_local:
            stack.enter_context(dask.config.set(_OWN))
            cluster = LocalCluster(
                n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
            )
            stack.callback(_closed, cluster)
            scheduler = cluster.scheduler_address
            local = LocalWorkers(where.n_local, threads_each, scheduler)
            stack.callback(local.close)
        else:
            scheduler, local = where.address or None, None
        security = None
        if where.tls is not None:
            ca, certificate, key = where.tls
            security = Security(
                tls_ca_file=ca, tls_client_cert=certificate, tls_client_key=key, require_encryption=True
            )

        def connect() -> Any:
            address = scheduler or _address_in(where.file)
            if local is None:
                where.refuse(address)
            return Client(address, security=security, timeout=_CONNECT_SECONDS, set_as_default=False, name="streamconv")

        pool = DaskPool(connect, order, str(where), reporter, local)
        stack.callback(pool.close)
        yield pool


def _address_in(file: Path | None) -> str:
    """What a scheduler wrote into ``file``. Dask would wait for the file for ever.

    Raises
    ------
    OSError, ValueError : nothing yet
    """
    assert file is not None
    told = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(told, dict) or not isinstance(told.get("address"), str):
        raise ValueError(f"{file} has no address of a scheduler")
    return str(told["address"])


def _is_open(address: str) -> bool:
    """Whether others than this machine may reach ``address`` without a certificate."""
    return address.startswith("tcp:") and not any(f"//{own}:" in address for own in ("127.0.0.1", "localhost", "[::1]"))


def _closed(cluster: Any) -> None:
    with suppress(Exception):  # the output has its name, or what is committed is kept: there is nothing to tell
        cluster.close(timeout=_CONNECT_SECONDS)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Dask, and the loop that it runs in, not print what is reported here in other words."""
    known = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    before = {logger: logger.level for logger in map(logging.getLogger, ("asyncio", *known))}
    for logger in before:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)
