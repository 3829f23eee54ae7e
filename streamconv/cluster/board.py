"""Which tasks are to be done, are being done, and have to be done once more. Knows neither network nor clock.

    ready ──next──► called ──made──► done
      ▲               │
      └─────lost──────┘      a worker died, a report went astray: again; after many tries in halves, then here

Of an item whose whole tensors count, the first call measures; the tasks of its chunks wait for what it finds. A call that takes
much longer than others gets a twin, and whatever comes first counts: the bytes are the same. What comes twice, late, or for
another run is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.index_file import CommitRecord
from ..errors import StreamconvError
from ..rows import Json, Rows
from .tasks import Task

#: calls of a task that may come to nothing before it is halved, or done here
TRIES = 10
#: a call is late after so many times the longest that ended, but not before so many seconds
_LATE_TIMES, _LATE_SECONDS = 4.0, 60.0


@dataclass(eq=False)
class Call:
    """A task on its way.

    Attributes
    ----------
    key : no other call of any run has it
    what : what ``worker.carry_out`` is told
    since : when it was made, in seconds
    is_look : whether it measures
    is_here : whether no worker could do it, so that the coordinator does
    """

    key: str
    task: Task
    what: Mapping[str, Any]
    since: float
    is_look: bool = False
    is_here: bool = False


class Board:
    """The tasks of one run.

    Parameters
    ----------
    name : no other run has it
    """

    def __init__(self, tasks: Sequence[Task], name: str) -> None:
        self._name = name
        self._ready = list(reversed(tasks))
        self._left: set[Task] = set(tasks)
        self._calls: dict[str, Call] = {}
        self._n_calls = 0
        self._longest = 0.0
        self._measuring: set[int] = set()
        self._sources: dict[int, bytes] = {}
        self._facts: dict[Rows, Json] = {}
        self._uses = Counter(look for task in tasks if task.item is not None for look in task.item.looks)

    @property
    def is_done(self) -> bool:
        """Whether all is made."""
        return not self._left

    @property
    def calls(self) -> Mapping[str, Call]:
        """The calls that nothing was heard of yet, by key."""
        return self._calls

    def next(self, now: float) -> Call | None:
        """Something that can be done now; None while all that is left is being done, or waits for what is measured."""
        waiting: set[int] = set()
        for at in reversed(range(len(self._ready))):
            task = self._ready[at]
            item = task.item
            if item is None or item.number in self._sources:
                del self._ready[at]
                return self._call(task, now)
            if item.number not in self._measuring and item.number not in waiting:
                known = [self._facts.get(look) for look in item.looks]
                if any(look in self._being_measured() for look in item.looks):
                    waiting.add(item.number)  # another item measures what this one needs, too
                    continue
                self._measuring.add(item.number)
                what = {"measure": item.number, "known": known}
                return self._keep(Call("", task, what, now, is_look=True, is_here=task.tries >= TRIES))
        return None

    def late(self, now: float) -> Call | None:
        """A twin of a call that takes too long, if there is one; another one, later, where the twin does so too."""
        limit = max(_LATE_SECONDS, _LATE_TIMES * self._longest)
        twins: dict[tuple[Task, bool], list[Call]] = {}
        for call in self._calls.values():
            twins.setdefault((call.task, call.is_look), []).append(call)
        for calls in twins.values():
            newest = calls[-1]
            if now - newest.since > limit * len(calls) and not newest.is_here:
                return self._keep(Call("", newest.task, newest.what, now, newest.is_look))
        return None

    def lost(self, key: str) -> None:
        """The call came to nothing, and the task is not to blame as far as can be told."""
        call = self._calls.pop(key, None)
        if call is None or self._twins(call):
            return
        call.task.tries += 1
        if call.is_look:
            if call.task.item is not None:
                self._measuring.discard(call.task.item.number)
        elif call.task in self._left:
            self._again(call.task)

    def answered(self, key: str, answer: Mapping[str, Any], now: float) -> list[CommitRecord]:
        """What of ``answer`` is new: chunks to commit.

        Raises
        ------
        StreamconvError : it is about other chunks than were asked for
        """
        call = self._calls.pop(key, None)
        if call is None:
            return []
        self._longest = max(self._longest, now - call.since)
        item = call.task.item
        if call.is_look:
            assert item is not None
            self._measuring.discard(item.number)
            self._sources[item.number] = answer["source"]
            self._facts.update(zip(item.looks, answer["facts"], strict=True))
            return []
        if call.task not in self._left:
            return []
        made = [CommitRecord(*fields) for fields in answer["made"]]
        _refuse_others(call.task, made)
        self._left.discard(call.task)
        self._forget(call.task)
        return made

    def superfluous(self) -> list[str]:
        """Keys of calls whose results came from elsewhere; forgets them."""
        keys = [
            key for key, call in self._calls.items()
            if (call.task not in self._left if not call.is_look else call.task.item is not None
                and call.task.item.number in self._sources)
        ]  # fmt: skip
        for key in keys:
            del self._calls[key]
        return keys

    def _call(self, task: Task, now: float) -> Call:
        what: dict[str, Any] = {"make": task.numbers, "item": None, "facts": [], "source": b""}
        if task.item is not None:
            facts = [self._facts[look] for look in task.item.looks]
            what |= {"item": task.item.number, "facts": facts, "source": self._sources[task.item.number]}
        return self._keep(Call("", task, what, now, is_here=task.tries >= TRIES))

    def _keep(self, call: Call) -> Call:
        self._n_calls += 1
        call.key = f"streamconv-{self._name}-{self._n_calls}"
        self._calls[call.key] = call
        return call

    def _twins(self, call: Call) -> bool:
        return any(c.task is call.task and c.is_look == call.is_look for c in self._calls.values())

    def _being_measured(self) -> set[Rows]:
        items = (call.task.item for call in self._calls.values() if call.is_look)
        return {look for item in items if item is not None for look in item.looks if look not in self._facts}

    def _again(self, task: Task) -> None:
        if task.tries < TRIES or len(task.bundles) == 1:
            self._ready.append(task)
            return
        middle = len(task.bundles) // 2
        halves = [Task(part, task.item, TRIES // 2) for part in (task.bundles[:middle], task.bundles[middle:])]
        self._left.discard(task)
        self._left.update(halves)
        self._ready += reversed(halves)
        if task.item is not None:
            self._uses.update(task.item.looks)

    def _forget(self, task: Task) -> None:
        """Drop what was measured with the last chunk that needs it."""
        for look in task.item.looks if task.item is not None else ():
            self._uses[look] -= 1
            if not self._uses[look]:
                self._facts.pop(look, None)


def _refuse_others(task: Task, made: Sequence[CommitRecord]) -> None:
    asked = {c.number: (c.file, c.offset, c.length, c.stop - c.start) for bundle in task.bundles for c in bundle}
    said = {s.chunk: (s.file, s.offset, s.length, s.rows) for s in made}
    if asked != said or len(made) != len(asked):
        raise StreamconvError(f"a worker was asked for chunks {sorted(asked)}, and says that it made {sorted(said)}")
