"""Inputs that change between two runs: every way to change a file, over every state that an output may be in.

As in the tests of git (t7508, racy-git), borg and restic. Whatever happens, a run that ends with 0 has left the bytes of a fresh
conversion of the inputs as they are; what is only touched, moved or copied is not made again; and where nothing differs nothing
is read.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamconv.sources import mapped

from .changing import KINDS, STATES, Subject, change, half
from .jobs import SOAK

SLOW = pytest.mark.slow
Tell = Callable[[str], None]
#: states in which it is known what the output was made from
KNOWN = ("finished", "unfinished", "unfinished_without_digests", "killed_before_the_end", "killed_between_names")
#: how a run without a flag refuses other contents
REFUSED = {"finished": {73}, "unfinished": {65}, "killed": {65, 73}}


@pytest.fixture(scope="module", autouse=True)
def _few_samples() -> Iterator[None]:
    """Leave most of a small file out of what is read while planning, as of a large one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "_SAMPLES", 2)
        patch.setattr(mapped, "_SAMPLE_BYTES", 64)
        yield


@pytest.fixture(scope="module")
def subject_of(folder: Path) -> Callable[[str], Subject]:
    made: dict[str, Subject] = {}

    def get(kind: str) -> Subject:
        if kind not in made:
            root = folder / f"changes-{kind}"
            root.mkdir()
            made[kind] = KINDS[kind](root)
        return made[kind]

    return get


def combinations(seed: int, kind: str, state: str, n: int) -> list[tuple[bool, bool, bool, str, str]]:
    """``n`` of all combinations of changed time, inode, size, contents, and a flag."""
    places = ("", "sampled", "between the samples", "unused", "done", "not done", "half done")
    every = list(
        itertools.product((False, True), (False, True), (False, False, False, True), places, ("", "update", "force"))
    )
    return random.Random(f"{seed} {kind} {state}").sample(every, min(n, len(every)))


def one(subject: Subject, state: str, mtime: bool, inode: bool, size: bool, place: str, flag: str) -> list[str]:
    """What is wrong with one case."""
    subject.clean()
    before = subject.fresh()
    STATES[state](subject)
    done = half(subject) if "unfinished" in state else len(subject.plan.chunks())
    places = subject.places(done)
    if place and place not in places:
        return []
    change(subject.weights, mtime=mtime, inode=inode, size=size, at=places[place] if place else None)
    after = subject.fresh()
    where = f"{state}, mtime={mtime} inode={inode} size={size} {place or 'same contents'} {flag}"
    try:
        result = subject.go(**{flag: True} if flag else {})
    except Exception as e:
        return [f"{where}: {e!r}"]
    same, wrong = place in ("", "unused") and after == before, []
    if isinstance(after, int):
        return [] if result.code == after else [f"{where}: exit {result.code}, not {after}: {result.said}"]
    if result.code == 0:
        if subject.made() != after:
            wrong.append(f"{where}: not what a fresh conversion gives")
    elif flag:
        wrong.append(f"{where}: exit {result.code}: {result.said}")
    elif result.code not in REFUSED[_refused_as(state)]:
        wrong.append(f"{where}: refused with {result.code}: {result.said}")
    if flag:
        pass
    elif after != before and result.code == 0 and "unfinished" not in state:  # there the changed rows were not made yet
        wrong.append(f"{where}: other contents, and no word")
    elif same and state in KNOWN and result.code:
        wrong.append(f"{where}: the same contents are refused: {result.said}")
    if same and state in KNOWN and flag != "force":
        chunks = subject.plan.chunks()
        to_make = sum(c.stop - c.start for c in chunks[done:] if c.part == 0) if "unfinished" in state else 0
        if result.rows > to_make:
            wrong.append(f"{where}: {result.rows} rows were made, {to_make} had to be")
    if result.code == 0:
        again = subject.go()
        if again.code or again.filled or again.digests or again.outputs_read or subject.made() != after:
            wrong.append(f"{where}: nothing differs, and the next run is {again}")
    return wrong


def _refused_as(state: str) -> str:
    return next((name for name in ("unfinished", "killed") if name in state), "finished")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "n"),
    [("plain", 4), *(pytest.param(kind, SOAK // 10 or 3, marks=SLOW) for kind in KINDS)],
)
def test_what_changed_is_noticed_and_what_did_not_is_kept(
    kind: str, n: int, subject_of: Callable[[str], Subject], seed: int, tell: Tell
) -> None:
    subject, wrong, count = subject_of(kind), [], 0
    for state in STATES:
        for combination in combinations(seed, kind, state, n):
            wrong += one(subject, state, *combination)
            count += 1
    tell(f"{count} changes of an input of {kind}: {len(wrong)} wrong, seed {seed}")
    assert not wrong, "\n".join(wrong)
