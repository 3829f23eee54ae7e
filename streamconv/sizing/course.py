"""One run of the stages of a mix: when it ends early, and several models through a layer at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .. import forward
from ..conversion import Options
from ..engine import run as runs
from ..engine.budget import default_threads
from ..errors import Interrupted, Stopped
from ..evaluation.groups import block_of
from ..forward.chunks import Tokens
from ..limits import one_thread_of_blas
from ..rows import Floats, matrix_shape
from ..threads import spread
from .records import Records

_HINT = "Run the same command again: what was measured is kept."


class Task(NamedTuple):
    """A model with some states before a layer, and where those after it go.

    Attributes
    ----------
    tokens : int32[n_chunks, n_ctx]
    before, after : float32[n_chunks, n_ctx, width]; ``after`` is None for a buffer that ``done`` is told of, and which goes then
    """

    model: forward.Model
    tokens: Tokens
    before: Floats
    after: Floats | None
    done: Callable[[Floats], None] = lambda after: None


class Course:
    """What the stages of a run share.

    Attributes
    ----------
    records : what was measured so far
    threads : of this run
    """

    def __init__(self, records: Records, options: Options, reporter: runs.Reporter) -> None:
        self.records, self.options, self.reporter = records, options, reporter
        self.threads = options.threads or default_threads()
        self.stop = runs.StopRequest(options.stop_after_s)
        self._layers = 0

    def look(self) -> None:
        """Raise where a signal asks to stop.

        Raises
        ------
        Interrupted : it does
        """
        if self.stop.signum:
            error = Interrupted(self.stop.signum, f"stopped by {signal.Signals(self.stop.signum).name} while measuring")
            error.hint = _HINT
            raise error

    def look_between(self) -> None:
        """Raise where a signal asks to stop, or the time is over and this run has got further; called between steps.

        Raises
        ------
        Interrupted, Stopped : it does
        """
        self.look()
        if (self.records.made or self._layers) and self.stop.is_due():
            raise Stopped("stopped as requested while measuring", _HINT)

    def made_step(self) -> None:
        """A layer is done that is no step of its own."""
        self._layers += 1

    def layer(self, number: int, tasks: Sequence[Task]) -> None:
        """Take all ``tasks`` through layer ``number``; each reads its weights once where there are as many tasks as threads."""
        n_ctx = max(task.tokens.shape[1] for task in tasks)
        least = forward.least_ram(tasks[0].model, n_ctx)
        least += max((4 * task.before.size for task in tasks if task.after is None), default=0)
        at_once = max(1, min(self.threads, len(tasks), self.options.ram // least))

        def one(task: Task) -> None:
            after = np.empty_like(task.before) if task.after is None else task.after
            forward.run_layer(
                task.model, number, task.tokens, task.before, after, ram=self.options.ram // at_once,
                threads=self.threads // at_once, observe=lambda *_: self.look(),
            )  # fmt: skip
            task.done(after)
            self.reporter.advance(task.tokens.size, f"blk.{number}")

        with one_thread_of_blas():
            spread(one, tasks, at_once)


def release(model: forward.Model, number: int) -> None:
    """Layer ``number`` of ``model`` is not read again soon."""
    for name, rows in model.rows.items():
        if block_of(name) == number:
            rows.release(0, matrix_shape(rows.shape)[0])
