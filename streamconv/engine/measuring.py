"""What a worker does next: chunks in their order, and before the first of a tensor what is to be measured of it as a whole.

One tensor is measured at a time, so that its pages are read once and memory does not grow with the threads. Other workers go on
with chunks that need nothing of it; those that find none take part. What was measured is forgotten with the last chunk.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence

from ..rows import Rows
from ..workers import Workers
from .plan import Chunk, Item


class Measuring:
    """Bundles of chunks that are to be made; safe to use from several threads.

    Parameters
    ----------
    wanted : whether the run still waits for what is being measured
    """

    def __init__(self, bundles: Sequence[list[Chunk]], wanted: Callable[[], bool]) -> None:
        self._left = deque(bundles)
        self._wanted = wanted
        self._lock = threading.Lock()
        self._workers: Workers | None = None
        self._measured: set[Rows] = set()
        self._uses = Counter(look for bundle in bundles for look in bundle[0].item.looks)

    def take(self, ahead: int) -> tuple[list[Chunk], Chunk | None] | None:
        """The next chunks to make, and one that will be taken ``ahead`` turns after the next; None when all are taken.

        Measures what these chunks need before it returns, or helps who does.

        Raises
        ------
        Stopped, BadInput : as ``Rows.measure``, to all who took part
        """
        while True:
            with self._lock:
                bundle, leads = self._pop(), False
                if bundle is None and self._workers is None:
                    return None
                if bundle is not None and not self._is_ready(bundle):
                    leads, self._workers = True, Workers(self._wanted)
                workers, later = self._workers, self._left[ahead][0] if ahead < len(self._left) else None
            if workers is not None and bundle is None:
                workers.help()
            elif bundle is not None:
                if workers is not None and leads:
                    self._measure(bundle[0].item, workers)
                return bundle, later

    def made(self, bundle: list[Chunk]) -> None:
        """These chunks need nothing any more."""
        with self._lock:
            for look in bundle[0].item.looks:
                self._uses[look] -= 1
                if not self._uses[look]:
                    look.measured(None)

    def _pop(self) -> list[Chunk] | None:
        """Take the first bundle that can be made now: any, where nothing is being measured."""
        for at, bundle in enumerate(self._left):
            if self._workers is None or self._is_ready(bundle):
                del self._left[at]
                return bundle
        return None

    def _is_ready(self, bundle: list[Chunk]) -> bool:
        return all(look in self._measured for look in bundle[0].item.looks)

    def _measure(self, item: Item, workers: Workers) -> None:
        reason: BaseException | None = None
        try:
            for look in item.looks:
                if look not in self._measured:
                    look.measured(look.measure(workers))
                    self._measured.add(look)
        except BaseException as e:
            reason = e
            raise
        finally:
            with self._lock:
                self._workers = None
            workers.dismiss(reason)
