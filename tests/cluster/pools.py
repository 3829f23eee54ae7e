"""Pools without a network: calls are done in this process, by workers that die, stop for a while, or say it twice."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from streamconv.cluster import worker
from streamconv.cluster.board import Call
from streamconv.cluster.dispatcher import Report


class HerePool:
    """Does every call at once, as what travels would be read back at the other end.

    Parameters
    ----------
    seed : of what goes wrong; None: nothing
    inside : a context for the calls of a worker, by its number
    """

    def __init__(
        self,
        order: str,
        *,
        n_workers: int = 3,
        seed: int | None = None,
        inside: Callable[[int], Any] = lambda number: nullcontext(),
        carry_out: Callable[[str, Mapping[str, Any]], Any] = worker.carry_out,
    ) -> None:
        self._order, self._n_workers, self._inside = order, n_workers, inside
        self._rng = random.Random(seed)
        self._faulty = seed is not None
        self._carry_out = carry_out
        self._queue: list[Call] = []
        self._asleep: list[Call] = []
        self.done: list[Mapping[str, Any]] = []
        self.faults: list[str] = []

    def n_threads(self) -> int:
        return self._n_workers

    def submit(self, call: Call) -> None:
        self._queue.append(call)

    def cancel(self, keys: Sequence[str]) -> None:
        self._queue = [call for call in self._queue if call.key not in keys]

    def reports(self, seconds: float) -> list[Report]:
        if not self._queue:
            return []
        call = self._queue.pop(self._rng.randrange(len(self._queue)) if self._faulty else 0)
        fault = self._rng.choice(("", "", "", "dies", "dies late", "sleeps", "twice")) if self._faulty else ""
        if self._faulty and not self.faults:
            fault = "dies late"
        self.faults.append(fault)
        if fault == "dies":
            return [Report(call.key)]
        if fault == "sleeps":
            self._asleep.append(call)
            return [Report(call.key)]
        answer = self._do(call)
        if fault == "dies late":
            return [Report(call.key)]
        return [Report(call.key, answer)] * (2 if fault == "twice" else 1)

    def wake(self) -> list[Any]:
        """What the workers that were stopped do when all is over."""
        return [self._do(call) for call in self._asleep]

    def _do(self, call: Call) -> Any:
        self.done.append(call.what)
        with self._inside(self._rng.randrange(self._n_workers)):
            return self._carry_out(self._order, _travelled(call.what))


def _travelled(what: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes out at the other end, with facts that have been JSON."""
    facts = {name: json.loads(json.dumps(what[name])) for name in ("facts", "known") if name in what}
    return {**what, **facts}
