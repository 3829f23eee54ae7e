"""Perplexity of a model on a text, and how far models are from a reference."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import forward
from ..conversion import Opener, Options, open_runnable
from ..conversion.hub_models import HubModels
from ..engine import budget as budgets
from ..engine import files
from ..engine import run as runs
from ..errors import BadInput, Interrupted, StreamconvError, WriteFailed
from ..forward.chunks import Chunks
from ..forward.divergence import Divergence, Doubles
from .heads import Head, divergences, log_probabilities
from .pages import refuse_page
from .request import Request, chunks_of, refuse_idle, tokens_of
from .states import States, states_bytes
from .walk import Walk, require_ram

AnyPath = str | os.PathLike[str]


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


def perplexity(source: AnyPath, request: Request, options: Options, reporter: runs.Reporter) -> Compared:
    """What ``source`` says of the right tokens of the text.

    Raises
    ------
    StreamconvError : a model cannot be run, the text is too short, …; nothing is left on the disk
    """
    return compare(source, [], request, options, reporter)


def compare(
    reference: AnyPath, sources: Sequence[AnyPath], request: Request, options: Options, reporter: runs.Reporter
) -> Compared:
    """How far the models ``sources`` are from ``reference`` on the text; all of them are refused, or run, together.

    Raises
    ------
    BadInput : a model has another vocabulary, or makes other tokens of the text
    StreamconvError : and see ``perplexity`` and ``pages.refuse_page``
    """
    _, text = request.read_text()
    hub = HubModels(Path(), offline=options.offline, refresh=options.refresh)
    try:
        opener = Opener(options, hub)
        opened = [open_runnable(source, options, opener) for source in (reference, *sources)]
        refuse_idle(options, [checkpoint for _, checkpoint in opened])
        if options.report:
            read = [file.path for _, checkpoint in opened for file in checkpoint.inputs]
            refuse_page(options.report, opener.roots, [*read, *([request.text] if request.text else [])])
        models = [model for model, _ in opened]
        for model in models:
            require_ram(model, request.n_ctx, options.ram)
        chunks = chunks_of(models[0], str(reference), text, request)
        for source, model in zip(sources, models[1:], strict=True):
            _refuse_another_vocabulary(reference, models[0], source, model, text, request)
        if hub.models:
            hub.notes.listen(lambda note: reporter.message(f"note: {note}"))
            hub.download(hub.weights)
        try:
            found = run_models(models, chunks, options, reporter)
        except StreamconvError as e:
            e.resumable = False  # whatever ended it: nothing is kept
            raise
        for _, checkpoint in opened:
            checkpoint.verify_unchanged()
        return found
    finally:
        hub.close()


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


def run_models(models: Sequence[forward.Model], chunks: Chunks, options: Options, reporter: runs.Reporter) -> Compared:
    """All ``models`` over ``chunks``, the first as the reference of the others; raises as ``compare``."""
    stop = runs.StopRequest()
    threads = budgets.default_threads() if options.threads is None else options.threads

    def stopped() -> StreamconvError:
        error = Interrupted(stop.signum, f"stopped by {signal.Signals(stop.signum).name}")
        error.hint = "Nothing is kept of a comparison; run the same command again to start over."
        return error

    shapes = [(*chunks.inputs.shape, model.width) for model in models]
    with stop.on_signals(), temporary_states(shapes) as kept:
        walks = [
            Walk(model, chunks.inputs, states, options.ram, threads, reporter, stop, stopped)
            for model, states in zip(models, kept, strict=True)
        ]
        reporter.start(sum(walk.total_bytes for walk in walks), 0)
        try:
            for walk in walks:
                walk.begin()
                for _ in range(walk.model.n_layers):
                    walk.layer()
                    walk.look()
                walk.states.settle()
            heads = [Head(walk.model, walk.states.current) for walk in walks]
            first, look, ram = heads[0], walks[0].look, min(walk.ram for walk in walks)
            if len(heads) == 1:
                return Compared(chunks, log_probabilities(first, chunks, ram, threads, look))
            found = divergences(first, heads[1:], chunks, ram, threads, look)
            return Compared(chunks, found[0].base.reshape(chunks.targets.shape), found)
        finally:
            reporter.finish()


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
