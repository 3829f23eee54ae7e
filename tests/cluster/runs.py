"""Runs of jobs whose chunks are made through a pool of the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pools import HerePool

from streamconv import conversion
from streamconv.cluster import worker
from streamconv.cluster.dispatcher import Dispatcher
from streamconv.cluster.order import Order
from streamconv.conversion import Options, Prepared
from streamconv.conversion.estimate import ns_per_weight
from streamconv.engine.job import Job
from streamconv.engine.makers import Makers
from streamconv.engine.run import Outcome
from streamconv.progress import Silent


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def through(
    prepared: Prepared,
    options: Options,
    pool_of: Callable[[str], HerePool] = HerePool,
    told: Told | None = None,
    altered: Callable[[Order], Order] = lambda order: order,
) -> tuple[Outcome | None, HerePool]:
    """Execute what is ``prepared`` with the pool that ``pool_of`` makes of the order."""
    pools: list[HerePool] = []

    @contextmanager
    def makers(job: Job) -> Iterator[Makers]:
        token = job.share()
        order = altered(Order.of(prepared, token)).text()
        pools.append(pool_of(order))
        yield Dispatcher(pools[0], order, f"{token.nonce:x}", ns_per_weight)

    outcome = conversion.execute(prepared, options, told or Told(), makers)
    return outcome, pools[0]


def forget_jobs() -> None:
    """Let the process be a worker that has seen no job."""
    for site in worker._sites:
        site.close()
    worker._sites.clear()


def outputs(prepared: Prepared) -> dict[str, bytes]:
    return {str(f.path): f.path.read_bytes() for f in prepared.plan.files}


def remove(prepared: Prepared) -> None:
    import shutil

    from streamconv.engine.record import record_path

    for f in prepared.plan.files:
        f.path.unlink()
    for output in prepared.plan.outputs:
        record_path(output).unlink(missing_ok=True)
    if prepared.plan.folder is not None:
        shutil.rmtree(prepared.plan.folder)


def fresh(job: Any, options: Options) -> tuple[Prepared, dict[str, bytes]]:
    """The outputs of ``job`` as threads make them, which are gone again."""
    prepared = job.plan(options)
    conversion.execute(prepared, options, Silent())
    made = outputs(prepared)
    remove(prepared)
    return job.plan(options), made
