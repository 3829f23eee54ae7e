"""Runs a plan: budget, kernels, job folder, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace

from .. import dequant
from ..engine import budget as budgets
from ..engine import job as jobs
from ..engine import reusing
from ..engine import run as runs
from ..engine.existing import look
from ..engine.makers import Makers
from ..engine.plan import Plan
from ..engine.record import record_of
from ..errors import InputChanged, StreamconvError
from ..quant.encode import EncodedRows
from ..sources.zstd import cache_bytes
from . import disk_space
from .chunk_inputs import ChunkInputs
from .options import Options
from .prepared import Prepared
from .reuse import reusable

#: with --evict: a commit after so many bytes, for what they were made of keeps its disk space until then
_EVICT_WINDOW = 32 << 20
#: reading so much is worth a word
_LONG_BYTES = 256 << 20


def budget_of(prepared: Prepared, options: Options) -> budgets.Budget:
    """The shares of the memory budget for ``prepared``."""
    budget = budgets.share(
        options.ram,
        budgets.default_threads() if options.threads is None else options.threads,
        max((i.n_cols for i in prepared.items), default=1),
        max((sum(-(-n // 64) * 64 for n in i.row_bytes) for i in prepared.items), default=1),
        held_bytes=cache_bytes(file for item in prepared.items for file in item.files),
    )
    if options.evict:  # inputs can go when what was made of them is committed, so commit more often
        return replace(budget, window_bytes=min(budget.window_bytes, _EVICT_WINDOW))
    return budget


#: opens who makes the chunks of a job
MakersOf = Callable[[jobs.Job], AbstractContextManager[Makers]]


def execute(
    prepared: Prepared, options: Options, reporter: runs.Reporter, makers: MakersOf | None = None
) -> runs.Outcome | None:
    """Run the plan to the end; None when its output is there already.

    Parameters
    ----------
    makers : makes the chunks; None: threads of this process

    Raises
    ------
    Every error of the tree; what is finished is kept for the next run.
    """
    try:
        return _execute(prepared, options, reporter, makers)
    finally:
        prepared.close()


def _execute(
    prepared: Prepared, options: Options, reporter: runs.Reporter, makers: MakersOf | None
) -> runs.Outcome | None:
    plan, hub = prepared.plan, prepared.hub
    stop = runs.StopRequest(options.stop_after_s)
    budget = budget_of(prepared, options)
    inputs: ChunkInputs | None = None

    def opened() -> jobs.Job:
        nonlocal inputs
        if hub is not None:
            hub.notes.listen(lambda text: reporter.message(f"note: {text}"))
            disk_space.preflight(hub, plan)
            inputs = ChunkInputs(hub)
        return _open_job(prepared, options, reporter)

    def work(job: jobs.Job) -> runs.Outcome:
        reuse = reusable(prepared, options)
        with _loading(_made_beside(prepared, job, reuse.found) if makers is None else []):
            copied = reusing.copy(job, reuse.found, budget, reporter, stop)
        left = [c for c in plan.chunks() if c.number not in job.done]
        if inputs is not None:
            inputs.begin(left)
        if makers is not None and left:
            with makers(job) as others:
                outcome = runs.run(job, budget, reporter, stop, inputs, others)
        else:
            pending = {c.item.number for c in left}
            items = [i for i in prepared.items if i.number in pending]
            warm_up(items, reporter)  # while the first bytes are on their way
            outcome = runs.run(job, budget, reporter, stop, inputs)
        outcome.resumed_bytes -= copied
        outcome.copied_bytes, outcome.copied_from = copied, reuse.found.donors
        outcome.notes += reuse.told()
        return outcome

    return carry_out(plan, options, reporter, opened, work)


def carry_out(
    plan: Plan,
    options: Options,
    reporter: runs.Reporter,
    opened: Callable[[], jobs.Job],
    work: Callable[[jobs.Job], runs.Outcome],
) -> runs.Outcome | None:
    """Let ``work`` make and publish the output of ``plan`` in the job that ``opened`` gives; None when it is there already."""
    found = look(plan, progress=_Reading(reporter))
    if found.complete and not options.force:
        jobs.leftover(plan)
        with suppress(StreamconvError):  # else the same contents are compared again next time
            jobs.renew(plan, found)
        if plan.has_manifest:
            _tell_of_no_manifest(plan, reporter)
        return None
    found.refuse(force=options.force, update=options.update)
    jobs.preflight(plan)
    job = opened()
    try:
        # Another process may have published it while we waited for the lock.
        if not options.force and look(plan, thorough=False).complete:
            job.discard()
            job.close()
            with suppress(StreamconvError):  # where locks do nothing, that one has removed the lock of both
                jobs.leftover(plan)
            return None
        return work(job)
    finally:
        job.close()


def _tell_of_no_manifest(plan: Plan, reporter: runs.Reporter) -> None:
    """An output that is there already keeps the record that it has."""
    for output in plan.outputs:
        record = record_of(output)
        if record is None or not any(f.tensors for f in record.files):
            reporter.message(f"note: {output} is complete and has no manifest: --force makes it again, with one")


class _Reading:
    """Says once that files are read because their times have changed, when that takes a while."""

    def __init__(self, reporter: runs.Reporter) -> None:
        self._reporter, self._bytes = reporter, 0

    def __call__(self, n_bytes: int) -> None:
        before, self._bytes = self._bytes, self._bytes + n_bytes
        if before < _LONG_BYTES <= self._bytes:
            self._reporter.message("note: file times have changed since the output was written; comparing contents")


class _ReadingBack:
    """Says once how much of what earlier runs made is read back, when that takes a while."""

    def __init__(self, reporter: runs.Reporter) -> None:
        self._reporter, self._is_said = reporter, False

    def __call__(self, _n_bytes: int, total: int) -> None:
        if total >= _LONG_BYTES and not self._is_said:
            self._is_said = True
            self._reporter.message(
                f"note: reading back {total / 2**30:.1f} GiB written by earlier runs to verify it"
                " (--verify-on-resume=recent reads only what was written since the last clean stop)"
            )


def open_job(plan: Plan, options: Options, reporter: runs.Reporter) -> jobs.Job:
    """The job folder of ``plan``."""
    return jobs.Job.open(
        plan, force=options.force, update=options.update, verify=options.verify, progress=_ReadingBack(reporter)
    )


def _open_job(prepared: Prepared, options: Options, reporter: runs.Reporter) -> jobs.Job:
    """The same, started over where it was computed from bytes that turned out corrupt."""
    try:
        return open_job(prepared.plan, options, reporter)
    except InputChanged:
        if prepared.hub is None or not prepared.hub.was_amended():
            raise
        reporter.message("note: downloaded bytes that were corrupt have been replaced; the output is started over")
        return jobs.Job.open(prepared.plan, discard=True)


def _made_beside(prepared: Prepared, job: jobs.Job, found: reusing.Reusable) -> list[EncodedRows]:
    """What is made where something else is copied."""
    left = {(c.item.number, c.part) for c in job.plan.chunks() if c.number not in job.done} if found.sources else set()
    numbers = {number for number, part in left if (number, part) not in found.sources}
    return [item for item in prepared.items if item.number in numbers]


@contextmanager
def _loading(items: Sequence[EncodedRows]) -> Iterator[None]:
    """Meanwhile load the kernels that ``items`` need, which takes half a second; none that would have to be compiled first.

    What goes wrong is told by ``warm_up``, where they are wanted.
    """
    kernels = _Kernels(items)

    def load() -> None:
        with suppress(Exception):
            kernels.load()

    thread = threading.Thread(target=load, daemon=True)
    if items and not kernels.new:
        with suppress(RuntimeError):  # there are no threads left
            thread.start()
    try:
        yield
    finally:
        if thread.ident is not None:
            thread.join()


class _Kernels:
    """The kernels that ``items`` need.

    Attributes
    ----------
    new : those that have to be compiled, by what they are for and their module
    """

    def __init__(self, items: Sequence[EncodedRows]) -> None:
        from ..kernels import cache
        from ..quant.base import codec_module

        self._kinds = {(e.type.name, e.has_weights, e.copies): e for i in items for e in i.parts}
        wanted = {
            (f"{e.type.name}{' with imatrix' if e.has_weights else ''}", codec_module(e.type))
            for e in self._kinds.values() if e.needs_kernel
        }  # fmt: skip
        decoders = [d for i in items for d in dequant.decoders_of(i.rows)]
        self._modules = sorted({name for d in decoders for name in d.kernels})
        wanted |= {(d.encoding.split(" ")[0], name) for d in decoders for name in d.kernels}
        self.new = sorted(pair for pair in wanted if not cache.knows(*pair))

    def load(self) -> None:
        """Load them, compiled or to be compiled."""
        from ..kernels import load

        for each in self._kinds.values():
            each.warm_up()
        for name in self._modules:
            load(name).warm_up()


def warm_up(items: Sequence[EncodedRows], reporter: runs.Reporter) -> None:
    """Compile the kernels that ``items`` need once, in this thread, and say so when it takes a while."""
    from ..kernels import cache

    kernels = _Kernels(items)
    if kernels.new:
        names = ", ".join(dict.fromkeys(what for what, _ in kernels.new))
        reporter.message(f"compiling kernels for {names} (once per machine)")
    kernels.load()
    for pair in kernels.new:
        cache.learn(*pair)
    if kernels.new and cache.not_kept():
        reporter.message(f"note: compiled kernels are used for this run only ({cache.not_kept()})")
