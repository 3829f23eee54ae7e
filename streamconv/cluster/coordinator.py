"""A conversion whose chunks are made by workers: what is refused, what they are told, and that they are fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .. import conversion
from ..conversion import Options, Prepared
from ..conversion.estimate import ns_per_weight
from ..engine.budget import default_threads
from ..engine.job import Job
from ..engine.makers import Makers
from ..engine.run import Outcome, Reporter
from ..errors import UsageError
from .order import Order
from .where import Where


def execute(prepared: Prepared, options: Options, reporter: Reporter) -> Outcome | None:
    """``conversion.execute`` on the workers of ``options.cluster``; here where there are none.

    Raises
    ------
    UsageError : it cannot be done on several machines
    PlanDiffers : a worker would make other bytes
    NetworkError : no scheduler or no worker answers
    StreamconvError : as ``conversion.execute``; what is committed is kept, for runs with and without workers
    """
    if options.cluster is None:
        return conversion.execute(prepared, options, reporter)
    try:
        where = Where.parse(options.cluster, options.cluster_tls)
        _refuse(prepared, options)
    except BaseException:
        prepared.close()
        raise
    return conversion.execute(prepared, options, reporter, lambda job: _makers(where, prepared, options, reporter, job))


def _refuse(prepared: Prepared, options: Options) -> None:
    if options.evict:
        raise UsageError(
            "--evict cannot be used with --cluster: workers read what it would free", "Leave one of them out."
        )
    if prepared.hub is not None and prepared.hub.missing_bytes():
        names = " ".join(model.repo for model in prepared.hub.models.values())
        raise UsageError(
            f"--cluster needs all of {names} fetched, in a store that all machines share",
            f"First: streamconv fetch {names}",
        )


@contextmanager
def _makers(where: Where, prepared: Prepared, options: Options, reporter: Reporter, job: Job) -> Iterator[Makers]:
    from .dask_pool import opened
    from .dispatcher import Dispatcher

    threads = max(1, (options.threads or default_threads()) // max(1, where.n_local))
    ram = {"ram_bytes": options.ram // where.n_local} if where.n_local else {}
    token = job.share()
    order = Order.of(prepared, token, **ram)
    with opened(where, order.text(), reporter, threads) as pool:
        if pool.memory_limits() - {0}:
            reporter.message(
                "note: workers have a memory limit, and files that are mapped count against it: they may be restarted"
                " (dask worker --memory-limit 0)"
            )
        yield Dispatcher(pool, order.text(), f"{token.salt:x}-{token.nonce:x}", ns_per_weight)
