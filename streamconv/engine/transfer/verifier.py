"""What becomes of ranges that are here: the digest of the whole file, the final name, or their space freed.

One thread per transfer. It reads the ranges of each file once more, in order, into the digest that the remote side lists for
the file, normally from the page cache. A file whose digest is right gets its name. One whose digest is wrong is asked for
again, once, only to compare: ranges that arrive differently now are replaced, all others stay; when the digest is wrong even
so, the file is refused.

When ranges are released as they are used, they go into the digest before; should they wait for an earlier range for too long,
the check of the whole is given up rather than the disk filled, and a message says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import xxhash

from ...errors import BadInput
from .part import CLAIMED, COMMITTED, PENDING, READY, Part
from .remote import Hash
from .shared import Shared


@dataclass
class _Sum:
    """The digest of a file, as far as it has got."""

    hash: Hash
    at: int = 0
    asked_again: list[str] = field(default_factory=list)


class Verifier:
    """Digest, publication and release of the parts of one transfer. Its lock is the transfer's ``changed``.

    Parameters
    ----------
    again : told, with the lock held, of ranges that are to be fetched once more
    give_back : told, with the lock held, of a file that is complete
    """

    def __init__(
        self, shared: Shared, again: Callable[[Part, Sequence[int]], None], give_back: Callable[[Part], None]
    ) -> None:
        self._shared, self._again, self._give_back = shared, again, give_back
        self._sums: dict[Part, _Sum] = {}
        self._checked: set[Part] = set()
        self._claims: Counter[tuple[Part, int]] = Counter()
        self._pins: Counter[tuple[Part, int]] = Counter()
        self._wanted: set[Part] = set()
        self._reserved: set[Part] = set()
        self._releasing = False
        self._cannot_release = False

    # What the transfer asks and tells; it holds the lock.

    def want_whole(self, part: Part) -> None:
        """Check and publish ``part`` once all of it is here."""
        self._wanted.add(part)
        if not part.whole:
            self._sums.setdefault(part, _Sum(part.remote.new_hash()))

    def start_releasing(self) -> None:
        """All claims are known: release what has none."""
        self._releasing = True
        for part in self._shared.parts:
            if not part.whole:
                self._sums.setdefault(part, _Sum(part.remote.new_hash()))

    def is_wanted(self, part: Part, index: int) -> bool:
        """Whether this range will be needed."""
        return part in self._wanted or self._claims[part, index] > 0

    def may_come(self, part: Part, index: int) -> bool:
        """Whether to fetch this range when no reader waits for it: not again after its release."""
        return not self._releasing or self.is_wanted(part, index)

    def reserves(self, part: Part) -> bool:
        """Whether the disk space of ``part`` is to be reserved now; once, and only for what stays."""
        with self._shared.changed:
            if part not in self._wanted or part in self._reserved:
                return False
            self._reserved.add(part)
            return True

    def claim(self, part: Part, index: int) -> None:
        """One more reader needs this range."""
        self._claims[part, index] += 1

    def unclaim(self, part: Part, index: int) -> None:
        """A reader is done with this range."""
        self._claims[part, index] -= 1

    def pin(self, part: Part, indexes: Iterable[int]) -> None:
        """These ranges are being read."""
        self._pins.update((part, i) for i in indexes)

    def unpin(self, part: Part, indexes: Iterable[int]) -> None:
        """They are no more."""
        self._pins.subtract((part, i) for i in indexes)

    def has_summed(self, part: Part, index: int) -> bool:
        """Whether this range need not be read any more for the digest of ``part``."""
        return part not in self._sums or index < self._sums[part].at

    def lying_bytes(self) -> int:
        """About how many bytes of unfinished files take disk space, heads left out."""
        unfinished = [p for p in self._shared.parts if not p.whole]
        return sum((len(p.states) - p.states.count(PENDING)) * p.cut.step for p in unfinished)

    def finished(self, parts: Sequence[Part]) -> bool:
        """Whether nothing more will become of ``parts``."""
        return all(p not in self._sums and (p.whole or p in self._checked or self._is_left(p)) for p in parts)

    def _is_left(self, part: Part) -> bool:
        here = (READY, COMMITTED)
        return self._releasing and all(self._claims[part, i] <= 0 or s in here for i, s in enumerate(part.states))

    # The thread.

    def run(self) -> None:
        """Body of the thread: until the transfer is closed or has failed."""
        changed = self._shared.changed
        try:
            while True:
                with changed:
                    while not (step := self._next()):
                        if self._shared.is_over():
                            return
                        changed.wait(1)
                part, indexes, releases = step
                if releases:
                    self._release(part, indexes)
                elif indexes:
                    self._add(part, indexes[0])
                else:
                    self._finish(part)
                self._shared.say(part)
        except BaseException as e:
            self._shared.fail(e)

    def _next(self) -> tuple[Part, list[int], bool] | None:
        """What to do next: a part, ranges, and whether they are to be released; without ranges, the part is to be finished."""
        if self._shared.is_over():
            return None
        if self._releasing:
            for part in self._shared.parts:
                if not part.whole and part not in self._wanted and (unused := self._unused(part)):
                    return part, unused, True
        for part, total in self._sums.items():
            if total.at == part.cut.n_ranges:
                return part, [], False
            if part.states[total.at] in (READY, COMMITTED):
                self.pin(part, [total.at])
                return part, [total.at], False
        return None

    def _unused(self, part: Part) -> list[int]:
        """Ranges that can be released; gives the digest up where it would keep too many from being so."""
        if self._cannot_release:
            return []
        idle = [
            i
            for i, state in enumerate(part.states)
            if i and state in (READY, COMMITTED) and self._claims[part, i] <= 0 and self._pins[part, i] <= 0
        ]
        total = self._sums.get(part)
        if total is None:
            return idle
        at = total.at
        waiting = [i for i in idle if i >= at]
        # What is here or on its way will soon be taken in; what only stands in the queue could wait for room that is never freed.
        is_late = at < part.cut.n_ranges and part.states[at] == PENDING
        too_many = len(waiting) * part.cut.step > self._shared.settings.ahead_bytes // 2
        if is_late and (too_many or self._claims[part, at] <= 0):
            del self._sums[part]
            part.notes.append(f"{part.remote.path}: released range by range, so its digest as a whole is not checked")
            self._shared.changed.notify_all()
            return idle
        return [i for i in idle if i < at]

    def _release(self, part: Part, indexes: list[int]) -> None:
        part.begin()
        with self._shared.changed:
            # They must not have become needed since.
            free = [i for i in indexes if self._claims[part, i] <= 0 and self._pins[part, i] <= 0]
            for i in free:
                part.states[i] = CLAIMED
        done = part.evict(free)
        with self._shared.changed:
            for i in free:
                part.states[i] = PENDING
            if not done and not self._cannot_release:
                self._cannot_release = True
                part.notes.append(
                    f"{part.home}: this filesystem cannot punch holes into files; released ranges keep their disk space"
                )
            self._shared.changed.notify_all()

    def _add(self, part: Part, index: int) -> None:
        """Take one more range into the file's digest, if it still is what was committed."""
        changed, was = self._shared.changed, part.digests.get(index)
        try:
            total = self._sums[part]
            digest, whole = xxhash.xxh3_128(), total.hash.copy()
            for data in part.read(index):
                digest.update(data)
                whole.update(data)
            good = digest.digest() == was
            if part.digests.get(index) != was:
                return  # a reader found it wrong meanwhile, and it has been fetched again
            if good:
                total.hash = whole
                total.at += 1
            elif part.states[index] == READY:
                part.begin()
                part.amend([index])
                part.invalidate(index)
            else:
                part.invalidate(index)
            if good and not (self._shared.settings.cached and self._claims[part, index] > 0):
                part.drop_cache(index)  # its readers have read it
        finally:
            with changed:
                self.unpin(part, [index])
        with changed:
            if part.states[index] in (READY, COMMITTED):
                part.states[index] = READY if good else PENDING
                if not good:
                    self._again(part, [index])
            changed.notify_all()

    def _finish(self, part: Part) -> None:
        """All of ``part`` went into the digest."""
        total = self._sums[part]
        found = total.hash.hexdigest()
        if found != part.remote.key:
            self._doubt_all(part, total, found)
            return
        if part in self._wanted:
            part.publish()
        with self._shared.changed:
            self._checked.add(part)
            del self._sums[part]
            self._give_back(part)
            self._shared.changed.notify_all()

    def _doubt_all(self, part: Part, total: _Sum, found: str) -> None:
        """The digest of the file is wrong: find the ranges that are, or refuse the file."""
        remote, stays = part.remote, part in self._wanted
        what = f"{remote.path}: bytes 0..{remote.size} have the digest {found}, the hub lists {remote.digest}"
        different: list[int] = []
        if stays and not total.asked_again:
            self._shared.observer.message(f"{what}; downloading it again to find the corrupt ranges")
            for index, digest in self._served(part):
                if digest != part.digests[index]:
                    start, stop = part.cut.span(index)
                    was = part.digests[index].hex()
                    total.asked_again.append(
                        f"bytes {start}..{stop} arrived with xxh3 {was} first, then with {digest.hex()}"
                    )
                    different.append(index)
        if not different:
            detail = "; ".join(total.asked_again) or "they were the same when downloaded again"
            raise BadInput(
                f"{what} ({detail if stays else 'found while releasing them'})",
                f"No output was made from them. What was received is kept; to start this file over, remove {part.path}",
            )
        part.amend(different)
        with self._shared.changed:
            total.hash, total.at = remote.new_hash(), 0
            for index in different:
                part.states[index] = PENDING
            self._again(part, different)
        self._shared.observer.message(f"{remote.path}: {'; '.join(total.asked_again)}; fetching these again")

    def _served(self, part: Part) -> Iterable[tuple[int, bytes]]:
        """Digests of all ranges as the origin sends them now; nothing is kept."""
        digest, at = xxhash.xxh3_128(), 0
        for offset, data in self._shared.origin.read(part.remote, 0, part.remote.size):
            block = memoryview(data)[max(0, at - offset) :]
            while block and not self._shared.closing:
                index = part.cut.index_of(at)
                piece = block[: part.cut.span(index)[1] - at]
                digest.update(piece)
                at += len(piece)
                block = block[len(piece) :]
                if at == part.cut.span(index)[1]:
                    yield index, digest.digest()
                    digest = xxhash.xxh3_128()
