"""Perplexity of a model on a text, and how far models are from a reference."""

from __future__ import annotations

import math
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import forward
from ..conversion import Opener, Options, open_runnable
from ..conversion.execution import open_job
from ..conversion.hub_models import HubModels
from ..conversion.outputs import pins_of
from ..conversion.overlap import refuse_overlap
from ..conversion.unfinished import check_name
from ..engine import budget as budgets
from ..engine import files
from ..engine import job as jobs
from ..engine import run as runs
from ..engine.finishing import confirm, resting
from ..engine.plan import Plan
from ..errors import BadInput, Interrupted, StreamconvError, UsageError, WriteFailed
from ..forward.chunks import Chunks
from ..forward.divergence import Divergence, Doubles
from ..sources.checkpoint import Checkpoint
from .groups import block_of
from .heads import Head, Table, fill
from .keeping import Comparison, Kept, make_plan, make_printed_durable
from .pages import refuse_page
from .request import Request, chunks_of, refuse_idle, tokens_of
from .states import States, states_bytes
from .walk import Walk, require_ram

AnyPath = str | os.PathLike[str]
#: operations that take about half an hour on two cores
_LONG = 4e14


@dataclass(frozen=True)
class Compared:
    """What came of it.

    Attributes
    ----------
    chunks : of the text
    log_p : float64[n_chunks, n_scored] ln p of the right tokens, by the first model
    divergences : of each further model, all positions one after the other
    """

    chunks: Chunks
    log_p: Doubles
    divergences: Sequence[Divergence] = ()


@contextmanager
def compare(
    reference: AnyPath,
    sources: Sequence[AnyPath],
    request: Request,
    options: Options,
    reporter: runs.Reporter,
    work: Path | None = None,
) -> Iterator[Compared]:
    """How far the models ``sources`` are from ``reference`` on the text; all of them are refused, or run, together.

    Parameters
    ----------
    sources : none, where only the perplexity of ``reference`` is wanted
    work : the run is kept in the job folder of this name until the result has been told, that is, to the end of the block, and
        goes on from there if it is there already; None: nothing is kept, and nothing is left on the disk

    Raises
    ------
    BadInput : a model cannot be run, has another vocabulary, or makes other tokens of the text
    PlanDiffers, InputChanged : the job folder holds another run, or one of these models before they were changed
    StreamconvError : and see ``pages.refuse_page``
    """
    work = check_name(work) if work is not None else None
    _refuse_idle(options, work)
    text_files, text = request.read_text()
    hub = HubModels(
        work.parent if work is not None else Path(), offline=options.offline, refresh=options.refresh,
        pins=pins_of(work) if work is not None and not options.force else {},
    )  # fmt: skip
    try:
        opener = Opener(options, hub)
        opened = [open_runnable(source, options, opener) for source in (reference, *sources)]
        checkpoints = [checkpoint for _, checkpoint in opened]
        refuse_idle(options, checkpoints)
        read = [*(file.path for checkpoint in checkpoints for file in checkpoint.inputs), *(f.path for f in text_files)]
        if options.report:
            refuse_page(options.report, opener.roots, read)
        models = [model for model, _ in opened]
        for model in models:
            require_ram(model, request.n_ctx, options.ram)
        comparison = Comparison(models, chunks_of(models[0], str(reference), text, request))
        for source, model in zip(sources, models[1:], strict=True):
            _refuse_another_vocabulary(reference, models[0], source, model, text, request)
        plan = None
        if work is not None:
            names = {"source": str(reference), "models": [*map(str, sources)], "text": request.text_name}
            told = {**names, "type": "comparison", **({"revisions": hub.revisions} if hub.models else {})}
            plan = make_plan(work, comparison, checkpoints, text_files, told)
            refuse_overlap([], [plan.job_dir], opener.roots, read, copied=False)
        elif _operations(comparison) > _LONG:
            reporter.message(
                "note: this takes long, and a run that is ended starts over; with --work NAME it would go on"
            )
        if hub.models:
            hub.notes.listen(lambda note: reporter.message(f"note: {note}"))
            hub.download(hub.weights)
        if plan is None:
            yield _without_a_trace(comparison, checkpoints, options, reporter)
        else:
            with _in_a_job(comparison, plan, options, reporter) as found:
                yield found
    finally:
        hub.close()


def _refuse_idle(options: Options, work: Path | None) -> None:
    given = {"--stop-after": options.stop_after_s is not None, "--force": options.force, "--update": options.update}
    idle = [flag for flag, is_given in given.items() if is_given]
    if idle and work is None:
        raise UsageError(f"{idle[0]} has no effect without --work, as nothing is kept then", "Add --work NAME.")


def _operations(comparison: Comparison) -> float:
    """About how many all layers take."""
    blocks = [rows for model in comparison.models for name, rows in model.rows.items() if block_of(name) is not None]
    return 2.0 * comparison.chunks.inputs.size * sum(math.prod(rows.shape) for rows in blocks)


def _without_a_trace(
    comparison: Comparison, checkpoints: Sequence[Checkpoint], options: Options, reporter: runs.Reporter
) -> Compared:
    """Run it; whatever ends it, nothing is kept."""
    try:
        found = run_models(comparison.models, comparison.chunks, options, reporter)
    except StreamconvError as e:
        e.resumable = False
        if isinstance(e, Interrupted):
            e.hint = "Nothing is kept of a comparison without --work NAME; run the same command again to start over."
        raise
    for checkpoint in checkpoints:
        checkpoint.verify_unchanged()
    return found


@contextmanager
def _in_a_job(comparison: Comparison, plan: Plan, options: Options, reporter: runs.Reporter) -> Iterator[Compared]:
    """Run it in a job folder, which goes at the end of the block."""
    jobs.preflight(plan)
    job = open_job(plan, options, reporter)
    try:
        for note in job.notes:
            reporter.message(f"note: {note}")
        with resting(job):
            found = run_models(comparison.models, comparison.chunks, options, reporter, Kept(job, comparison))
        confirm(job)
        yield found
        make_printed_durable()
        job.discard()
    finally:
        job.close()


def _refuse_another_vocabulary(
    reference: AnyPath, base: forward.Model, source: AnyPath, model: forward.Model, text: bytes, request: Request
) -> None:
    """Logits are compared token by token, so both must have the same."""
    if model.n_vocab != base.n_vocab:
        raise BadInput(f"{source} has a vocabulary of {model.n_vocab} tokens, {reference} one of {base.n_vocab}")
    if tokens_of(model, str(source), text, request) != tokens_of(base, str(reference), text, request):
        raise BadInput(
            f"{source} makes other tokens of {request.text_name} than {reference}", "Compare models of one vocabulary."
        )


def run_models(
    models: Sequence[forward.Model],
    chunks: Chunks,
    options: Options,
    reporter: runs.Reporter,
    kept: Kept | None = None,
) -> Compared:
    """All ``models`` over ``chunks``, the first as the reference of the others; raises as ``compare``.

    Parameters
    ----------
    kept : the same models and chunks in a job folder, from where they were left; None: nothing is kept
    """
    stop = runs.StopRequest(options.stop_after_s if kept is not None else None)
    threads = budgets.default_threads() if options.threads is None else options.threads

    def stopped() -> StreamconvError:
        if kept is not None:
            return stop.error(kept.job)
        error = Interrupted(stop.signum, f"stopped by {signal.Signals(stop.signum).name}")
        error.hint = "Nothing is kept of a comparison; run the same command again to start over."
        return error

    shapes = [(*chunks.inputs.shape, model.width) for model in models]
    with stop.on_signals(), temporary_states(shapes) if kept is None else kept.states() as found:
        walks = [
            Walk(model, chunks.inputs, states, options.ram, threads, reporter, stop, stopped)
            for model, states in zip(models, found, strict=True)
        ]
        reporter.start(sum(walk.total_bytes for walk in walks), sum(walk.done_bytes for walk in walks))
        try:
            for number, walk in enumerate(walks):
                walk.begin()
                for layer in range(walk.states.n_layers, walk.model.n_layers):
                    if kept is not None:
                        kept.begin_layer(number, layer)
                    walk.layer()
                    if kept is not None:
                        kept.end_layer(number, layer, walk.states)
                    walk.look()
                walk.states.settle()
            table = Table(chunks.targets.size, len(walks)) if kept is None else kept.table()
            heads = [Head(walk.model, walk.states.current) for walk in walks]

            def look() -> None:  # as ``Walk.look``
                if stop.signum or (stop.is_due() and (table.has_new or any(walk.made for walk in walks))):
                    raise stopped()

            fill(table, heads, chunks, min(walk.ram for walk in walks), threads, look)
        finally:
            reporter.finish()
    return Compared(chunks, table.log_p().reshape(chunks.targets.shape), table.divergences())


@contextmanager
def temporary_states(shapes: Sequence[tuple[int, int, int]]) -> Iterator[list[States]]:
    """States of models, in files without a name: whatever ends the process, nothing is left of them."""
    place = Path(tempfile.gettempdir())
    need, free = sum(map(states_bytes, shapes)), files.free_bytes(place)
    if need + budgets.RESERVE_BYTES > free:
        raise WriteFailed(
            f"{place}: {need:,} bytes are needed for hidden states, {free:,} are free",
            "Free some space, take fewer --chunks, or set TMPDIR to a folder on a larger disk.",
        )
    folder = Path(tempfile.mkdtemp(prefix="streamconv-"))
    found: list[States] = []
    try:
        for n, shape in enumerate(shapes):
            paths = [folder / f"{n}-{k}" for k in range(2)]
            found.append(States(paths, shape, bytes(32), durable=False))
            for path in paths:
                files.remove_file(path)
    finally:
        for path in files.listed(folder, folder):
            files.remove_file(path)
        files.remove_if_empty(folder)
    yield found
    for states in found:
        states.close()
