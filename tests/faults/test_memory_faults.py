"""Allocations that fail, once, for a while and for good: every run ends, says that memory ran out, and loses nothing."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest

from . import memory
from .jobs import SOAK, Bench
from .memory import HANGS, OfAddresses, OfArrays, OfPython

SLOW = pytest.mark.slow
Tell = Callable[[str], None]
#: done, or not enough memory
ENDS = {0, 74}
#: what CPython and numpy die of when they ask nobody whether they got what they asked for: a kill, which loses nothing
DIED = {-6, -11}
#: CPython takes some failed allocations for another error: an attribute that is not there, say
LOST = re.compile("unexpected (SystemError|TypeError|AttributeError)")
KINDS = ["one file", "several types", "folder", "merge of documents"]

needs_testcapi = pytest.mark.skipif(
    not find_spec("_testcapi"), reason="this Python was built without _testcapi, which lets its allocations fail"
)


def _numbers(rng: random.Random, trials: int, most: float) -> Iterator[int]:
    """Numbers of allocations: as many of the first ten as of the last hundred thousand."""
    return (int(most ** ((trial + rng.random()) / trials)) for trial in range(trials))


def _check(bench: Bench, fault: Callable[[], None], counts: Counter[int], also: set[int] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """What is wrong with a run under ``fault``, and with the next one without it."""
    bench.clean()
    bench.command[-1] = "3"  # threads
    code, text = memory.bounded(bench.command, bench.log, fault)
    counts[code] += 1
    found = []
    if code == HANGS:
        found.append(f"{fault} hangs:\n{text}")
    elif code not in ENDS | also and not (also and LOST.search(text)):
        found.append(f"{fault}: exit {code}: {text[-300:]}")
    elif code == 74 and not re.search("not enough (memory|addresses)|more threads", text):
        found.append(f"{fault}: does not say what ran out: {text[-300:]}")
    return found + bench.violations(str(fault)) + bench.finish(str(fault))


def _told(counts: Counter[int]) -> str:
    return ", ".join(f"{n} ended with {code}" for code, n in sorted(counts.items()))


def _sweeps(quick: int, slow: int) -> list[object]:
    """Kinds of job and numbers of trials: a few of one kind, or many of all."""
    return [("one file", quick), *(pytest.param(kind, SOAK or slow, marks=SLOW) for kind in KINDS)]


@pytest.mark.slow
@needs_testcapi
@pytest.mark.parametrize(("bench", "trials"), _sweeps(6, 12), indirect=["bench"])
@pytest.mark.parametrize("count", [1, pytest.param(30, marks=SLOW), 1000])
@pytest.mark.parametrize("from_start", [False, True], ids=["while threads run", "from the start"])
def test_a_run_ends_when_allocations_of_the_interpreter_fail(
    bench: Bench, trials: int, count: int, from_start: bool, seed: int, tell: Tell
) -> None:
    rng, counts = random.Random(f"{seed} {bench.kind} {count}"), Counter[int]()
    found = []
    for first in _numbers(rng, trials, 100_000):
        found += _check(bench, OfPython(first, count, from_start), counts, also=DIED)
    tell(f"{count} allocations failed in {trials} runs of {bench.kind}: {_told(counts)}; {len(found)} wrong")
    assert found == []
    assert counts[74] > 0, "no fault was met"


@pytest.mark.parametrize(("bench", "trials"), _sweeps(6, 12), indirect=["bench"])
@pytest.mark.parametrize("count", [pytest.param(1, marks=SLOW, id="once"), pytest.param(0, id="for good")])
def test_a_run_ends_when_arrays_and_mappings_cannot_be_made(
    bench: Bench, trials: int, count: int, seed: int, tell: Tell
) -> None:
    rng, counts = random.Random(f"{seed} {bench.kind} {count}"), Counter[int]()
    found = []
    for first in _numbers(rng, trials, 300):
        found += _check(bench, OfArrays(first, count), counts)
    tell(f"arrays failed in {trials} runs of {bench.kind}: {_told(counts)}; {len(found)} wrong")
    assert found == []
    assert counts[74] > 0, "no fault was met"


@pytest.mark.parametrize(("bench", "trials"), _sweeps(6, 12), indirect=["bench"])
def test_a_run_ends_when_the_system_grants_no_more_addresses(bench: Bench, trials: int, seed: int, tell: Tell) -> None:
    rng, counts = random.Random(f"{seed} {bench.kind}"), Counter[int]()
    found = []
    for more in _numbers(rng, trials, 100 << 20):
        found += _check(bench, OfAddresses(more), counts)
    tell(f"addresses ran out in {trials} runs of {bench.kind}: {_told(counts)}; {len(found)} wrong")
    assert found == []
    if not counts[74]:
        pytest.skip("no limit was met: what earlier tests have freed in this process was room enough")


def _never_lowered() -> None:
    """Workers that die, and nobody who sees it."""
    from streamconv.engine import makers, run
    from streamconv.threads import Thread

    def dying(self: object) -> None:
        raise MemoryError

    makers._Worker._take = dying  # type: ignore[assignment]
    run._Run._note_deaths = lambda self, threads: None  # type: ignore[method-assign]
    run._Run.fail = lambda self, error: None  # type: ignore[method-assign]
    Thread.is_alive = lambda self: self._begun  # type: ignore[method-assign]


def test_the_suite_catches_a_worker_that_nobody_sees_die(bench: Bench) -> None:
    assert memory.bounded(bench.command, bench.log, _never_lowered, seconds=1.5)[0] == HANGS
