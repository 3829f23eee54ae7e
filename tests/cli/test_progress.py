"""What reporters tell while a job runs, on a clock that the test turns."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from streamconv import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that reporters see; its only entry may be set."""
    now = [1000.0]
    monkeypatch.setattr("streamconv.progress.time.monotonic", lambda: now[0])
    return now


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_last_event_says_that_all_is_made_however_soon_it_comes(clock: list[float]) -> None:
    stream = io.StringIO()
    reporter = progress.Events(stream)
    reporter.start(100, 0)
    for _ in range(10):
        clock[0] += 0.01
        reporter.advance(10, "t")
    assert [e["done"] for e in events(stream) if e["event"] == "progress"] == [10, 100]


def test_an_event_a_second_is_enough(clock: list[float]) -> None:
    stream = io.StringIO()
    reporter = progress.Events(stream)
    reporter.start(100, 0)
    for _ in range(50):
        clock[0] += 0.1
        reporter.advance(1, "t")
    assert 5 <= sum(e["event"] == "progress" for e in events(stream)) <= 6


@pytest.mark.parametrize("done_before", [0, 40])
def test_the_time_left_follows_from_what_this_run_made(clock: list[float], done_before: int) -> None:
    stream = io.StringIO()
    reporter = progress.Events(stream)
    reporter.start(100, done_before)
    clock[0] += 2
    reporter.advance(10, "t")
    last = events(stream)[-1]
    assert (last["done"], last["total"]) == (done_before + 10, 100)
    assert last["left_s"] == (90 - done_before) * 2 / 10


def test_there_is_no_time_left_before_there_is_a_rate(clock: list[float]) -> None:
    stream = io.StringIO()
    reporter = progress.Events(stream)
    reporter.start(100, 0)
    clock[0] += 0.01
    reporter.advance(10, "t")
    clock[0] += 1.5
    reporter.advance(10, "t")
    assert [e["left_s"] for e in events(stream)[1:]] == [None, round(80 * 1.51 / 20, 1)]


def test_a_log_has_a_line_every_half_minute(clock: list[float]) -> None:
    stream = io.StringIO()
    reporter = progress.Lines(stream)
    reporter.start(1000, 500)
    for _ in range(13):
        clock[0] += 5
        reporter.advance(10, "blk.0.ffn_up.weight")
    lines = stream.getvalue().splitlines()
    assert [line.split(" of ")[0] for line in lines] == ["56 %", "62 %"]
    assert "3 min 40 s left, blk.0.ffn_up.weight" in lines[0]
