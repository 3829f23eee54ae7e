"""The connections of a transfer: which ranges to request next, and downloading them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence

from .part import CLAIMED, PENDING, READY, Filling, Part
from .shared import Shared
from .verifier import Verifier


class Connections:
    """The queue of one transfer, and what its worker threads do. Its lock is the transfer's ``changed``."""

    def __init__(self, shared: Shared, verifier: Verifier) -> None:
        self._shared, self._verifier = shared, verifier
        self._urgent: deque[tuple[Part, int]] = deque()
        self._soon: deque[tuple[Part, int]] = deque()
        self._wanted: deque[tuple[Part, int]] = deque()
        #: Files whose origin cannot give parts, with the thread that reads them from the beginning.
        self._in_one_go: dict[Part, int] = {}

    # What the transfer asks for; it holds the lock.

    def hurry(self, part: Part, index: int) -> None:
        """A reader waits for this range."""
        if (part, index) not in self._urgent:
            self._urgent.append((part, index))

    def hint(self, ranges: Iterable[tuple[Part, int]]) -> None:
        """A reader will soon wait for these."""
        self._soon.extend(ranges)

    def add(self, ranges: Iterable[tuple[Part, int]]) -> None:
        """These are wanted, after all that was added before."""
        self._wanted.extend(ranges)

    def add_again(self, part: Part, indexes: Sequence[int]) -> None:
        """These turned out to be missing after all."""
        wanted = [(part, i) for i in indexes if self._verifier.is_wanted(part, i)]
        self._wanted.extendleft(reversed(wanted))

    # The threads.

    def run(self) -> None:
        """Body of a worker thread: until the transfer is closed or has failed."""
        while True:
            with self._shared.changed:
                while (taken := self._take()) is None:
                    if self._shared.is_over():
                        return
                    self._shared.changed.wait(1)
            part, claimed = taken
            try:
                self._bring(part, claimed)
            except BaseException as e:
                self._shared.fail(e)
            finally:
                self._shared.say(part)
                with self._shared.changed:
                    for index in claimed:
                        part.states[index] = PENDING
                    self.add_again(part, sorted(claimed))
                    if self._in_one_go.get(part) == threading.get_ident():
                        del self._in_one_go[part]
                    self._shared.changed.notify_all()

    def _take(self) -> tuple[Part, set[int]] | None:
        """Claim the next ranges: consecutive ones of one file."""
        if self._shared.is_over():
            return None
        queues = [self._urgent]
        if self._shared.settings.keep or self._verifier.lying_bytes() < self._shared.settings.ahead_bytes:
            queues += [self._soon, self._wanted]
        for queue in queues:
            for _ in range(len(queue)):
                part, index = queue[0]
                if part in self._in_one_go:
                    queue.rotate(-1)  # its one connection fetches everything
                    continue
                queue.popleft()
                if part.whole or part.states[index] != PENDING:
                    continue
                if queue is self._urgent or self._verifier.may_come(part, index):
                    return part, self._claim_from(part, index)
        return None

    def _claim_from(self, part: Part, index: int) -> set[int]:
        """Claim ``index`` and what follows it, as far as it is wanted too."""
        claimed = {index}
        room = self._shared.settings.span_bytes - (part.cut.span(index)[1] - part.cut.span(index)[0])
        share = self._share()
        following = index + 1
        while following < part.cut.n_ranges and part.states[following] == PENDING:
            start, stop = part.cut.span(following)
            room -= stop - start
            if room < 0 or len(claimed) >= share or not self._verifier.is_wanted(part, following):
                break
            claimed.add(following)
            following += 1
        for i in claimed:
            part.states[i] = CLAIMED
        return claimed

    def _share(self) -> int:
        """How many ranges to ask for together: fewer towards the end, so that no connection ends long after the others."""
        left = sum(p.states.count(PENDING) for p in self._shared.parts if not p.whole)
        return max(1, left // (2 * self._shared.settings.connections))

    def _bring(self, part: Part, claimed: set[int]) -> None:
        """Fetch the ranges ``claimed``, which lie one behind the other; what is committed leaves the set."""
        part.begin()
        if self._verifier.reserves(part):
            part.reserve()
        fillings = {i: Filling(part, i) for i in claimed}
        start, stop = part.cut.span(min(claimed))[0], part.cut.span(max(claimed))[1]
        for at, data in self._shared.origin.read(part.remote, start, stop):
            block, offset = memoryview(data), at
            while block:
                if self._shared.is_over():
                    return
                index = part.cut.index_of(offset)
                piece = block[: part.cut.span(index)[1] - offset]
                if not start <= offset < stop and not self._all_in_one_go(part, index, claimed, fillings):
                    return
                filling = fillings.get(index)
                if filling is not None and filling.put(offset, piece) and filling.full:
                    self._commit(part, fillings.pop(index))
                    claimed.discard(index)
                offset += len(piece)
                block = block[len(piece) :]
            if not claimed and not self._misses(part):
                return  # a stream of the whole file goes on, but nothing else is needed of it

    def _all_in_one_go(self, part: Part, index: int, claimed: set[int], fillings: dict[int, Filling]) -> bool:
        """The origin sends more than was asked for: take what is missing. False when another thread does so already."""
        with self._shared.changed:
            me = threading.get_ident()
            if self._in_one_go.setdefault(part, me) != me:
                return False
            if part.states[index] == PENDING and self._verifier.is_wanted(part, index):
                part.states[index] = CLAIMED
                claimed.add(index)
                fillings[index] = Filling(part, index)  # stays empty where the stream is past its beginning already
            return True

    def _misses(self, part: Part) -> bool:
        with self._shared.changed:
            is_wanted = self._verifier.is_wanted
            return any(state == PENDING and is_wanted(part, i) for i, state in enumerate(part.states))

    def _commit(self, part: Part, filling: Filling) -> None:
        commit = filling.commit_record()
        part.commit(commit)
        with self._shared.changed:
            part.states[filling.index] = READY
            self._shared.changed.notify_all()
        self._shared.observer.received(commit.length, part.remote.path)
