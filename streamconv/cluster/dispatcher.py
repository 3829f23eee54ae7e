"""Makes the chunks of a run on workers: calls go out, what comes back is handed in."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .. import errors
from ..engine.makers import Desk
from ..errors import NetworkError, StreamconvError
from .board import Board, Call
from .tasks import cut
from .worker import carry_out

#: calls on their way for every thread of a worker: one that is being done, one that waits there
_AHEAD = 2
_LOOK_SECONDS = 0.5
#: answers of workers that do not see that the run goes on, one after the other, before that is believed
_STALE, _STALE_SECONDS = 100, 0.2


@dataclass(frozen=True)
class Report:
    """What became of a call.

    Attributes
    ----------
    answer : of ``worker.carry_out``; None where the call was lost with its worker, or with all of them
    error : what it raised, which no other worker will do better
    """

    key: str
    answer: Mapping[str, Any] | None = None
    error: BaseException | None = None


class Pool(Protocol):
    """Carries calls to workers."""

    def n_threads(self) -> int:
        """Threads that workers have for calls; 0 while there are none."""

    def submit(self, call: Call) -> None:
        """Have a call done; returns at once."""

    def reports(self, seconds: float) -> Sequence[Report]:
        """What became of calls since; waits at most so long for the first.

        Raises
        ------
        NetworkError : no scheduler or worker is left to say
        """

    def cancel(self, keys: Sequence[str]) -> None:
        """These calls are not waited for any more; some may be done all the same."""


class Dispatcher:
    """Makers that are somewhere else; see ``engine.makers.Makers``.

    Parameters
    ----------
    order : what workers are told of the job
    name : no other run has it
    ns_per_weight : what an item takes, about
    """

    is_durable = True

    def __init__(self, pool: Pool, order: str, name: str, ns_per_weight: Callable[[Any], float]) -> None:
        self._pool, self._order, self._name, self._ns = pool, order, name, ns_per_weight
        self._rounds = 0
        self._n_stale = 0
        self.has_doubt = False

    def bodies(self, desk: Desk) -> Sequence[Callable[[], None]]:
        """See ``engine.makers.Makers``."""
        return [lambda: self._dispatch(desk)] if desk.pending else []

    def _dispatch(self, desk: Desk) -> None:
        self._rounds += 1
        board = Board(cut(desk.pending, self._ns, max(1, self._pool.n_threads())), f"{self._name}-{self._rounds}")
        try:
            while not board.is_done and desk.is_wanted() and not desk.is_stopped():
                self._fill(board, desk)
                for report in self._pool.reports(_LOOK_SECONDS):
                    self._take_in(report, board, desk)
                self._pool.cancel(board.superfluous())
        finally:
            self._pool.cancel(list(board.calls))

    def _fill(self, board: Board, desk: Desk) -> None:
        """Send calls, as many as keep all workers busy."""
        room = _AHEAD * self._pool.n_threads() - len(board.calls)
        now = time.monotonic()
        while room > 0 and (call := board.next(now) or board.late(now)) is not None:
            if call.is_here:
                self._take_in(Report(call.key, carry_out(self._order, call.what)), board, desk)
            else:
                self._pool.submit(call)
            room -= 1

    def _take_in(self, report: Report, board: Board, desk: Desk) -> None:
        call, answer = board.calls.get(report.key), report.answer
        if call is None:
            return
        if report.error is not None:
            raise report.error
        if answer is None:
            board.lost(report.key)
            return
        if "error" in answer:
            raise _error_of(answer)
        if "stale" in answer:
            desk.job.confirm()  # it may be right
            self._n_stale += 1
            if self._n_stale >= _STALE:
                raise NetworkError(
                    f"workers such as {answer['worker']} do not see {desk.job.plan.job_dir} as this machine does",
                    "The folder of the output must lie on a file system that all machines share, under the same name.",
                )
            board.lost(report.key)
            time.sleep(_STALE_SECONDS)
            return
        made = board.answered(report.key, answer, time.monotonic())
        if made:
            self._n_stale = 0
            self.has_doubt |= answer["touched"]
            desk.hand_in(made, call.task.bundles[0][0].item.name)


def _error_of(answer: Mapping[str, Any]) -> StreamconvError:
    """The error that a worker met, as this process has it."""
    kind = getattr(errors, answer["error"], StreamconvError)
    known = isinstance(kind, type) and issubclass(kind, StreamconvError) and kind is not errors.Interrupted
    return (kind if known else StreamconvError)(f"{answer['worker']}: {answer['message']}", answer["hint"])
