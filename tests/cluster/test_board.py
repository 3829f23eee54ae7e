"""The board, whatever order things happen in: every chunk is handed in once, whoever dies, stalls or reports twice."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

sys.path.append(str(Path(__file__).resolve().parent.parent / "engine"))
from toy_jobs import Look, Toy, make_plan

from streamconv.cluster.board import Board, Call
from streamconv.cluster.tasks import SECONDS, cut
from streamconv.engine.plan import Plan, bundles


def plan() -> Plan:
    shared = Look()
    toys = [Toy("a", 30), Toy("b", 20, looks=[shared]), Toy("c", 9, 64, 32, looks=[shared, Look()]), Toy("d", 12)]
    return make_plan(Path("/nowhere"), toys)


class Workers(RuleBasedStateMachine):
    """Calls on their way, answered, lost, twice, late; time goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks = plan().chunks()
        self.board = Board(cut(bundles(self.chunks), lambda item: 1e6, 2), "run")
        self.now = 0.0
        self.out: list[Call] = []
        self.old: list[Call] = []
        self.handed_in: list[int] = []
        self.measured: dict[int, int] = {}

    def answer(self, call: Call) -> dict[str, object]:
        item = call.task.item
        if call.is_look:
            assert item is not None
            return {"facts": [f"fact {at}" for at, _ in enumerate(item.looks)], "source": b"x"}
        if item is not None:
            assert len(call.what["facts"]) == len(item.looks)
            assert all(call.what["facts"])
        made = [self.chunks[number] for number in call.what["make"]]
        return {
            "made": [(c.number, c.file, c.offset, c.length, c.stop - c.start, b"d" * 16) for c in made],
            "touched": False,
        }

    def taken(self, call: Call) -> None:
        self.handed_in += [s.chunk for s in self.board.answered(call.key, self.answer(call), self.now)]
        self.old.append(call)

    @rule()
    def next(self) -> None:
        call = self.board.next(self.now)
        if call is not None:
            assert call.key not in {c.key for c in (*self.out, *self.old)}
            self.out.append(call)

    @rule()
    def late(self) -> None:
        call = self.board.late(self.now)
        if call is not None:
            assert any(self.now - c.since > 60 and c.task is call.task for c in self.out)
            self.out.append(call)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.taken(self.out.pop(data.draw(st.integers(0, len(self.out) - 1))))

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        call = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.board.lost(call.key)
        self.old.append(call)

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def report_late_or_twice(self, data: st.DataObject) -> None:
        before = len(self.handed_in)
        self.taken(self.old[data.draw(st.integers(0, len(self.old) - 1))])
        assert len(self.handed_in) == before

    @rule()
    def cancel(self) -> None:
        gone = self.board.superfluous()
        self.old += [call for call in self.out if call.key in gone]
        self.out = [call for call in self.out if call.key not in gone]

    @rule(seconds=st.floats(0, 200))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def nothing_is_handed_in_twice(self) -> None:
        assert len(set(self.handed_in)) == len(self.handed_in)

    def teardown(self) -> None:
        for _ in range(1000):
            if self.board.is_done:
                break
            call = self.board.next(self.now)
            if call is not None:
                self.out.append(call)
            assert self.out, "nothing is on its way, and nothing can be begun"
            self.taken(self.out.pop(0))
        assert sorted(self.handed_in) == [c.number for c in self.chunks]
        assert not self.board._facts, "what was measured is kept"


TestBoard = Workers.TestCase
TestBoard.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


def test_tasks_are_all_chunks_in_their_order_each_about_as_long_as_the_others() -> None:
    pending = bundles(plan().chunks())
    tasks = cut(
        pending, lambda item: 0.99e9 * SECONDS / 64 / 16, 1
    )  # 4 rows of 64 weights: a quarter of what a task may take
    assert [n for task in tasks for n in task.numbers] == [c.number for bundle in pending for c in bundle]
    assert max(len(task.bundles) for task in tasks) == 4
    for task in tasks:
        items = {bundle[0].item.number for bundle in task.bundles}
        assert task.item is None or items == {task.item.number}


def test_small_jobs_are_cut_so_that_all_workers_have_some() -> None:
    assert len(cut(bundles(plan().chunks()), lambda item: 1.0, 2)) >= 8


def test_a_call_whose_twin_stalls_as_well_gets_another() -> None:
    board = Board(cut(bundles(plan().chunks()), lambda item: 1e6, 2), "run")
    first = board.next(0.0)
    twin = board.late(61.0)
    assert board.late(122.0) is None
    third = board.late(182.0)
    assert first is not None
    assert twin is not None
    assert third is not None
    assert first.what == twin.what == third.what
    assert len({first.key, twin.key, third.key}) == 3
