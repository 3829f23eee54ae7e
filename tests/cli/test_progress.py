"""What reporters tell while a job runs, on a clock that the test turns."""

from __future__ import annotations

import errno
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


def progressed(clock: list[float], n_bytes: int, *pauses: float, before: int = 0) -> list[dict[str, Any]]:
    """The events of progress in a job of 100 bytes, ``before`` of which are there: it makes ``n_bytes`` after each pause (s)."""
    stream = io.StringIO()
    reporter = progress.Events(stream)
    reporter.start(100, before)
    for pause in pauses:
        clock[0] += pause
        reporter.advance(n_bytes, "t")
    return [e for e in map(json.loads, stream.getvalue().splitlines()) if e["event"] == "progress"]


def test_the_last_event_says_that_all_is_made_however_soon_it_comes(clock: list[float]) -> None:
    assert [e["done"] for e in progressed(clock, 10, *[0.01] * 10)] == [10, 100]


def test_an_event_a_second_is_enough(clock: list[float]) -> None:
    assert 5 <= len(progressed(clock, 1, *[0.1] * 50)) <= 6


@pytest.mark.parametrize("before", [0, 40])
def test_the_time_left_follows_from_what_this_run_made(clock: list[float], before: int) -> None:
    (event,) = progressed(clock, 10, 2, before=before)
    assert (event["done"], event["total"]) == (before + 10, 100)
    assert event["left_s"] == (90 - before) * 2 / 10


def test_there_is_no_time_left_before_there_is_a_rate(clock: list[float]) -> None:
    assert [e["left_s"] for e in progressed(clock, 10, 0.01, 1.5)] == [None, round(80 * 1.51 / 20, 1)]


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


class _Terminal(io.StringIO):
    """One that can go away while somebody writes to it."""

    is_gone = False

    def write(self, text: str, /) -> int:
        if self.is_gone:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


def test_a_terminal_that_goes_away_stops_nothing() -> None:
    terminal = _Terminal()
    reporter = progress.Bar(terminal)
    reporter.start(100, 0)
    terminal.is_gone = True
    reporter.advance(50, "t")
    reporter.message("note: nobody hears this")
    reporter.advance(50, "t")
    reporter.finish()
    assert reporter.done == 100
