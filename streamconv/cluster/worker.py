"""What a worker does: it plans for itself, compares, fills ranges of part files, and says what it made.

It commits nothing and knows no scheduler: ``carry_out`` is a function of what it is told, and may be called by any number of
threads, any number of times, and long after it is of any use.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from typing import Any

from ..conversion import budget_of, prepare_again
from ..conversion.execution import warm_up
from ..engine.attaching import Attached, Stale
from ..engine.changes import SourceDigests
from ..engine.making import Maker
from ..engine.plan import Item, bundles
from ..errors import PlanDiffers, Stopped, StreamconvError, exhausted
from ..progress import Silent
from ..rows import Json
from ..workers import Workers
from .order import Order, inputs_of, refuse_other_versions

#: what was measured of so many items is kept; more where more are being made
_KEPT_ITEMS = 2

#: what a call returns
Answer = dict[str, Any]


def carry_out(order: str, task: Mapping[str, Any]) -> Answer:
    """Do one task of the job that ``order`` describes.

    Parameters
    ----------
    task : ``{"measure": item number, "known": [value or None]}``, or
        ``{"make": [chunk number], "item": number or None, "facts": [value], "source": digest of everything}``

    Returns
    -------
    dict : ``{"facts": [value], "source": bytes}``; or ``{"made": [fields of a CommitRecord], "touched": bool}``;
        or ``{"stale": True}`` where the run does not go on; or ``{"error": class, "message": text, "hint": text}``;
        and in each of them ``"worker"``: who did it
    """
    try:
        with _site(order) as site:
            answer = site.measure(task["measure"], task["known"]) if "measure" in task else site.make(task)
            return {**answer, "worker": _me()}
    except BaseException as e:
        found = exhausted(e) or e
        if isinstance(found, (Stale, Stopped)):  # only the token stops a worker
            return {"stale": True, "worker": _me()}
        if isinstance(found, StreamconvError):
            return {"error": type(found).__name__, "message": found.message, "hint": found.hint, "worker": _me()}
        raise


_turn = threading.Condition()
_sites: list[_Site] = []


@contextmanager
def _site(order: str) -> Iterator[_Site]:
    """The job that this process works for: one at a time, for memory and the current folder are the process's."""
    with _turn:
        while _sites and _sites[0].text != order and _sites[0].users:
            _turn.wait(1.0)
        if _sites and _sites[0].text != order:
            _sites.pop().close()
        if not _sites:
            _sites.append(_Site(order))
        site = _sites[0]
        site.users += 1
    try:
        yield site
    finally:
        with _turn:
            site.users -= 1
            _turn.notify_all()


class _Site:
    """A job as this process knows it.

    Raises
    ------
    PlanDiffers : this process would make other bytes
    StreamconvError : it cannot plan what the coordinator has planned
    """

    def __init__(self, text: str) -> None:
        self.text, self.users = text, 0
        order = Order.read(text)
        refuse_other_versions(order.versions)
        try:
            os.chdir(order.recipe.folder)  # the one that this process is in may be gone
        except OSError as e:
            raise PlanDiffers(
                f"{order.recipe.folder}, the folder of the command, cannot be entered here: {e.strerror}",
                "All machines must see that folder, for relative names are meant from it: start the command in a shared one.",
            ) from None
        self._prepared = prepared = prepare_again(order.recipe)
        self._plan = plan = prepared.plan
        try:
            _refuse_differences(order, prepared.plan.fingerprint, inputs_of(plan))
            options = replace(order.recipe.options, threads=_threads())
            self._budget = budget_of(prepared, options)
            warm_up(prepared.items, Silent())
        except BaseException:
            prepared.close()
            raise
        self._chunks = plan.chunks()
        self._items = {item.number: item for item, _ in plan.items}
        self._attached = Attached(plan, order.token)
        self._sources = SourceDigests(self._attached.is_wanted)
        self._facts = _Facts()
        self._makers: list[Maker] = []
        self._looking: Workers | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of inputs and part files."""
        self._attached.close()
        self._prepared.close()

    def make(self, task: Mapping[str, Any]) -> Answer:
        """Make chunks; see ``carry_out``."""
        if not self._attached.is_current():
            return {"stale": True}
        made: list[tuple[Any, ...]] = []
        groups = bundles(self._chunks[number] for number in task["make"])
        item = self._items[task["item"]] if task["item"] is not None else None
        with self._facts.known(item, task["facts"]), self._maker() as maker:
            if item is not None and task["source"]:
                self._sources.know(item.number, task["source"])
            for at, bundle in enumerate(groups):
                if at + 1 < len(groups):
                    ahead = groups[at + 1][0]
                    ahead.item.prefetch(ahead.start, ahead.stop)
                commits = maker.make(bundle)
                if commits is None:
                    return {"stale": True}
                bundle[0].item.release(bundle[0].start, bundle[0].stop)
                made += map(astuple, commits)
        touched = self._plan.verify_inputs()
        return {"made": made, "touched": touched} if self._attached.is_current() else {"stale": True}

    def measure(self, number: int, known: Sequence[Json]) -> Answer:
        """Measure what the chunks of an item need; see ``carry_out``. One item at a time; others help."""
        if not self._attached.is_current():
            return {"stale": True}
        item, own = self._items[number], Workers(self._attached.is_wanted)
        while True:
            with self._lock:
                first = self._looking
                if first is None:
                    self._looking = own
                    break
            first.help()
        reason: BaseException | None = None
        try:
            values = list(known)
            with self._facts.known(item, []):
                for at, look in enumerate(item.looks):
                    if values[at] is None:
                        values[at] = look.measure(own)
                    look.measured(values[at])
                    self._facts.learned(item)
                digest = b"" if self._sources.is_quick(item) else self._sources.of(item, 0, 0)
        except BaseException as e:
            reason = e
            raise
        finally:
            with self._lock:
                self._looking = None
            own.dismiss(reason)
        return {"facts": values, "source": digest}

    @contextmanager
    def _maker(self) -> Iterator[Maker]:
        """A maker that no other thread uses meanwhile."""
        with self._lock:
            found = self._makers.pop() if self._makers else None
        found = found or Maker(self._budget, self._attached.put, self._sources, self._attached.is_wanted)
        yield found
        with self._lock:
            self._makers.append(found)


class _Facts:
    """Which items have been told what was measured of them; forgets those that are not being made."""

    def __init__(self) -> None:
        self._users: OrderedDict[int, list[Any]] = OrderedDict()  # number -> item, users, whether it knows
        self._lock = threading.Lock()

    @contextmanager
    def known(self, item: Item | None, values: Sequence[Json]) -> Iterator[None]:
        """Let ``item`` know ``values`` meanwhile, if there are any."""
        if item is None:
            yield
            return
        with self._lock:
            entry = self._users.setdefault(item.number, [item, 0, False])
            self._users.move_to_end(item.number)
            entry[1] += 1
            if values and not entry[2]:
                for look, value in zip(item.looks, values, strict=True):
                    look.measured(value)
                entry[2] = True
        try:
            yield
        finally:
            with self._lock:
                entry[1] -= 1
                idle = [number for number, (_, users, _) in self._users.items() if not users]
                for number in idle[: max(0, len(self._users) - _KEPT_ITEMS)]:
                    self._forget(number)

    def learned(self, item: Item) -> None:
        """``item`` has been told by who measures it."""
        with self._lock:
            self._users[item.number][2] = True

    def _forget(self, number: int) -> None:
        item = self._users.pop(number)[0]
        still = {look for other, _, _ in self._users.values() for look in other.looks}
        for look in item.looks:
            if look not in still:
                look.measured(None)


def _refuse_differences(order: Order, fingerprint: bytes, inputs: list[list[Any]]) -> None:
    differing = next((a for a, b in zip(order.inputs, inputs, strict=False) if a != b), None)
    if differing is not None or len(order.inputs) != len(inputs):
        name = str(differing[0]) if differing else "the list of inputs"
        raise PlanDiffers(
            f"{name} is another file here than where the job was planned",
            "All machines must see the same inputs under the same names: size and time of the last change are compared.",
        )
    if fingerprint != order.token.fingerprint:
        raise PlanDiffers(
            "the same command is another plan here than where the job was planned",
            "Small files that are read (recipes, importance matrices, plug-ins) must be the same on all machines.",
        )


def _me() -> str:
    return f"worker {os.getpid()} on {platform.node()}"


def _threads() -> int:
    """Threads that call ``carry_out`` in this process."""
    if "distributed" not in sys.modules:
        return 1
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:  # the coordinator itself
        return 1
