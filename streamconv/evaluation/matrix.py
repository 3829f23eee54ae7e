"""An importance matrix from a model and a text: a job that is committed layer by layer.

The range of a layer's entries in the output is one chunk of the job. A layer is done when the states after it are durable (they
say so themselves, ``states``) and its range is committed; so a kill costs one layer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import xxhash

from .. import forward
from ..conversion import Opener, Options, open_runnable
from ..conversion.execution import carry_out, open_job
from ..conversion.hub_models import HubModels
from ..conversion.outputs import pins_of
from ..conversion.overlap import refuse_overlap
from ..conversion.unfinished import check_name
from ..engine import budget as budgets
from ..engine import files
from ..engine import run as runs
from ..engine.changes import SourceDigests
from ..engine.finishing import finish, resting
from ..engine.index_file import CommitRecord
from ..engine.job import Job
from ..engine.plan import Chunk, Plan
from ..engine.record import record_path
from ..forward.chunks import Chunks
from ..forward.divergence import Doubles
from ..forward.importance import FEW_VISITS, Found, Importance
from ..quant.imatrix_files import Shape
from ..quant.imatrix_sums import Sums
from ..rows import Floats
from ..sources.checkpoint import Checkpoint
from ..targets.imatrix import ImatrixLayout, layout
from .adding import open_sums, with_tail
from .groups import Group, block_of, grouped
from .heads import Head, log_probabilities, observe_head
from .planning import UNKNOWN_JOB, any_changed, check_ending, digest_of, facts_of, make_plan
from .request import Request, chunks_of, input_file, refuse_idle
from .states import States, states_bytes
from .walk import Walk, require_ram

#: what a product of float32 numbers is no part of: norms, filters over time, and whatever has one dimension
_NO_PRODUCTS = ("norm", "ssm_conv1d", "shortconv.conv")


def shapes_of(model: forward.Model, process_output: bool = False) -> list[Shape]:
    """The entries that llama-imatrix would make: all matrices of the blocks that are run, and the head if it is asked for."""
    numbers = {layer.number for layer in model.layers}
    # Keys and values of an earlier layer are taken; files have matrices for them all the same.
    idle = {layer.name(f"attn_{x}.weight") for layer in model.layers if layer.kv_of is not None for x in "kv"}
    found = []
    for name, rows in model.rows.items():
        wanted = name not in idle if block_of(name) in numbers else process_output and name == "output.weight"
        if wanted and name.endswith(".weight") and len(rows.shape) > 1 and not any(no in name for no in _NO_PRODUCTS):
            n_mat = rows.shape[0] if len(rows.shape) == 3 else 1
            # One matrix for each head counts as one, with the columns of all of them.
            found.append(
                Shape(name, n_mat, rows.shape[-1]) if "_exps" in name else Shape(name, 1, n_mat * rows.shape[-1])
            )
    return found


@dataclass(frozen=True)
class Measurement:
    """A planned importance matrix; ``groups`` are its ranges, in the order of the file."""

    plan: Plan
    groups: list[Group]
    model: forward.Model
    chunks: Chunks
    request: Request
    layout: ImatrixLayout
    before: Sums | None
    hub: HubModels | None
    warnings: list[str] = field(default_factory=list)


@dataclass
class Measured:
    """What was found on the way.

    Attributes
    ----------
    log_p : float64[n_chunks, n_scored] ln p of the right tokens; None where it was not asked for
    deviation : the largest, over all layers, of what halves of the text differ by in the middle; and the layer's name
    few_visits : experts that fewer than ``FEW_VISITS`` tokens reached, of ``n_experts``
    """

    outcome: runs.Outcome
    log_p: Doubles | None = None
    deviation: tuple[float, str] = (0.0, "")
    few_visits: int = 0
    n_experts: int = 0


def prepare_imatrix(source: str | os.PathLike[str], output: Path, request: Request, options: Options) -> Measurement:
    """Plan an importance matrix: reads headers, configuration, tokenizer and the text, writes nothing.

    Raises
    ------
    UsageError, BadInput, InputMissing, NoPermission : what is wrong, before anything is written
    """
    output = check_ending(check_name(output))
    hub = HubModels(
        output.parent, offline=options.offline, refresh=options.refresh, pins={} if options.force else pins_of(output)
    )
    try:
        opener = Opener(options, hub)
        model, checkpoint = open_runnable(source, options, opener)
        refuse_idle(options, [checkpoint])
        require_ram(model, request.n_ctx, options.ram)
        measurement = _planned(source, model, checkpoint, output, request, opener)
        named = [path for path in (request.text, *request.before) if path is not None]
        plan = measurement.plan
        refuse_overlap(
            [output, record_path(output)], [plan.job_dir], opener.roots,
            [*(f.path for f in checkpoint.inputs), *named], copied=False,
        )  # fmt: skip
        return measurement
    except BaseException:
        hub.close()
        raise


def _planned(
    source: str | os.PathLike[str],
    model: forward.Model,
    checkpoint: Checkpoint,
    output: Path,
    request: Request,
    opener: Opener,
) -> Measurement:
    text_files, text = request.read_text()
    chunks = chunks_of(model, str(source), text, request)
    warnings = []
    if request.text is None:
        warnings.append(
            f"calibrating with {request.text_name} ({text.count(10):,} lines of prose, code and chat in 16 languages);"
            " give --text for your own domain"
        )
    if request.process_output and model.head != "output.weight":
        warnings.append("--process-output: the model has no output.weight of its own, so there is no entry for it")
    own = shapes_of(model, request.process_output)
    before = open_sums(request.before, request.n_ctx) if request.before else None
    shapes, datasets = own, [request.text_name]
    n_tokens = chunks.inputs.size
    n_chunks = len(chunks.inputs)
    if before is not None:
        before.refuse_others(own)
        mine = {shape.name: shape for shape in own}
        shapes = [*own, *(shape for name, shape in before.shapes.items() if name not in mine)]
        datasets = [*before.datasets, *datasets]
        counts = (int(c.max()) + n_tokens * (name in mine) for name, c in before.counts.items())
        n_chunks = max(n_tokens, *counts) // request.n_ctx
    lay_out = partial(layout, output, shapes, datasets, n_chunks, request.n_ctx)
    blank = lay_out(UNKNOWN_JOB)
    groups = grouped(shapes, blank, model, chunks.inputs)
    inputs = [*checkpoint.inputs, *text_files, *(input_file(path)[0] for path in request.before)]
    others = inputs[len(checkpoint.inputs) :]
    shape = (*chunks.inputs.shape, model.width)
    plan = make_plan(
        output, lay_out, groups, inputs, lambda: any_changed(others, checkpoint.verify_unchanged),
        _facts(model, chunks, request, text),
        {"source": str(source), "text": request.text_name, **({"revisions": opener.hub.revisions} if opener.hub.models else {})},
        states_bytes(shape),
    )  # fmt: skip
    return Measurement(
        plan, groups, model, chunks, request, blank, before, opener.hub if opener.hub.models else None, warnings
    )


def _facts(model: forward.Model, chunks: Chunks, request: Request, text: bytes) -> dict[str, object]:
    """What decides the bytes besides tensors and the layout of the file."""
    return {
        "kind": "imatrix",
        # A text in a file is one of the inputs.
        **({"text": hashlib.sha256(text).hexdigest()} if request.text is None else {}),
        "tokens": digest_of(chunks.inputs),
        "n_ctx": request.n_ctx,
        **facts_of(model),
    }


def write_imatrix(m: Measurement, options: Options, reporter: runs.Reporter) -> Measured | None:
    """Carry out the plan; None when its file is there already.

    Raises
    ------
    Every error of the tree; what is finished is kept for the next run.
    """
    found: list[Measured] = []

    def work(job: Job) -> runs.Outcome:
        run = _Run(m, options, reporter, job)
        try:
            found.append(run.go())
        finally:
            run.close()
        return found[-1].outcome

    try:
        if m.hub is not None:
            m.hub.notes.listen(lambda text: reporter.message(f"note: {text}"))
            m.hub.download(m.hub.weights)
        carry_out(m.plan, options, reporter, lambda: open_job(m.plan, options, reporter), work)
    finally:
        if m.hub is not None:
            m.hub.close()
    return found[-1] if found else None


class _Run:
    """One run of such a job."""

    def __init__(self, m: Measurement, options: Options, reporter: runs.Reporter, job: Job) -> None:
        self._m, self._job, self._reporter = m, job, reporter
        self._stop = runs.StopRequest(options.stop_after_s)
        threads = budgets.default_threads() if options.threads is None else options.threads
        shape = (*m.chunks.inputs.shape, m.model.width)
        paths = [m.plan.job_dir / f"data-{n}.part" for n in (2, 3)]
        self._states = States(paths, shape, m.plan.fingerprint)
        self._walk = Walk(
            m.model,
            m.chunks.inputs,
            self._states,
            options.ram,
            threads,
            reporter,
            self._stop,
            lambda: self._stop.error(job),
        )
        self._groups = {group.name: group for group in m.groups}
        self._chunks: dict[str, Chunk] = {chunk.item.name: chunk for chunk in m.plan.chunks()}

    def close(self) -> None:
        """Let go of the states."""
        self._states.close()

    def go(self) -> Measured:
        """From the states that there are to the published file."""
        job, m = self._job, self._m
        done = 0
        while done < m.model.n_layers and self._is_done(f"blk.{done}"):
            done += 1
        if self._states.restore(done) < m.model.n_layers:
            self._forget_head()  # now: once the last layer is made again, nothing tells that it was given something else
        total, resumed = self._walk.total_bytes, self._walk.done_bytes
        outcome = runs.Outcome(resumed_bytes=resumed, notes=list(job.notes))
        self._reporter.start(total, resumed)
        try:
            with resting(job), self._stop.on_signals():
                self._layers()
                log_p = self._head()
            measured = self._told(outcome, log_p)
            finish(job)
        finally:
            self._reporter.finish()
        outcome.made_bytes = total - resumed
        return measured

    def _is_done(self, name: str) -> bool:
        chunk = self._chunks.get(name)
        return chunk is None or chunk.number in self._job.done

    def _layers(self) -> None:
        """What is of no layer that is run, then the layers that are missing."""
        for name, group in self._groups.items():
            is_run = group.block is not None and group.block < self._m.model.n_layers
            if not is_run and name != self._head_group and not self._is_done(name):
                self._commit(group, {})
        self._walk.look()
        self._walk.begin()
        while self._states.n_layers < self._m.model.n_layers:
            self._layer(self._groups.get(f"blk.{self._states.n_layers}"))
            self._walk.look()

    @property
    def _head_group(self) -> str:
        return self._m.model.head if self._m.request.process_output and self._m.model.head == "output.weight" else ""

    def _forget_head(self) -> None:
        chunk = self._chunks.get(self._head_group)
        if chunk is not None and self._job.done.pop(chunk.number, None) is not None:
            self._job.journal.forget([chunk.number])

    def _layer(self, group: Group | None) -> None:
        """The next layer; ``group`` has its entries, if there are any."""
        shapes = [] if group is None else [s for s in shapes_of(self._m.model) if s in group.entries]
        source = b"" if group is None else SourceDigests().of(group, 0, 1)
        importance = Importance(shapes)
        self._walk.layer(importance, importance.n_bytes)
        if group is not None:
            self._commit(group, importance.result(), source)

    def _head(self) -> Doubles | None:
        """The head's own entry, and the perplexity."""
        m, walk = self._m, self._walk
        if self._head_group and not self._is_done(self._head_group):
            group = self._groups[self._head_group]
            importance = Importance(group.entries)
            for number, chunks in enumerate(forward.blocks_of(*m.chunks.inputs.shape)):
                walk.look()
                states = self._states.current[chunks].reshape(-1, m.model.width)
                observe_head(m.model, states, partial(_observed, importance, number))
            self._commit(group, importance.result())
        if not m.request.with_perplexity:
            return None
        return log_probabilities(Head(m.model, self._states.current), m.chunks, walk.ram, walk.threads, walk.look)

    def _commit(self, group: Group, found: Mapping[str, Found], source: bytes = b"") -> None:
        """Write the range of ``group`` with what was ``found``, and record it."""
        job, path, chunk = self._job, self._m.plan.part_path(0), self._chunks[group.name]
        data = _encoded(self._m, group, found)
        files.pwrite_all(job.part_fds[0], data, chunk.offset, path)
        # What slots of a conversion say of its errors stands here for how sure the numbers are.
        deviation = max((f.deviation for f in found.values()), default=0.0)
        few = max((int((f.counts < FEW_VISITS).sum()) for f in found.values() if len(f.counts) > 1), default=0)
        record = CommitRecord(
            chunk.number, 0, chunk.offset, chunk.length, 1, xxhash.xxh3_128(data).digest(), max_error=deviation,
            nonfinite=few, source=source or SourceDigests().of(group, 0, 1),
        )  # fmt: skip
        job.commit([record])

    def _told(self, outcome: runs.Outcome, log_p: Doubles | None) -> Measured:
        """What is to be said of the whole file."""
        named = {chunk.number: name for name, chunk in self._chunks.items()}
        commits = list(self._job.journal.commits())
        model = self._m.model
        n_experts = (
            0
            if model.router is None
            else model.router.n_experts * sum(layer.n_experts_used > 0 for layer in model.layers)
        )
        deviation = max(((s.max_error, named[s.chunk]) for s in commits), default=(0.0, ""))
        return Measured(outcome, log_p, deviation, sum(s.nonfinite for s in commits), n_experts)


def _observed(importance: Importance, block: int, name: str, x: Floats) -> None:
    importance(name, block, x)


def _encoded(m: Measurement, group: Group, found: Mapping[str, Found]) -> bytes:
    """The bytes of a group, with what files had before."""
    parts = []
    for shape in group.entries:
        sums, counts = np.zeros((shape.n_mat, shape.n_cols)), np.zeros(shape.n_mat, np.int64)
        if shape.name in found:
            sums, counts = found[shape.name].squares, found[shape.name].counts
        if m.before is not None and shape.name in m.before.shapes:
            sums = sums + m.before.sums(shape.name).reshape(sums.shape)
            counts = counts + m.before.counts[shape.name]
        parts.append(m.layout.encode(shape, sums, counts))
    return with_tail(group, m.layout, b"".join(parts))
