"""What a person or a pipeline sees while a job runs: a bar on a terminal, a line now and then without one, JSON events."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import psutil

from .errors import StreamconvError
from .terminal import plain, say, say_json
from .units import size

_LINE_EVERY_S = 30.0
_EVENT_EVERY_S = 1.0
#: what a run makes in less time tells nothing of how fast it will go on
_RATE_AFTER_S = 1.0
#: of what is kept of a run: the time between two points at first, and the most points
_POINT_EVERY_S, _MOST_POINTS = 0.05, 256


def count(n: float) -> str:
    """``n`` weights for people, in powers of 1000.

    >>> count(64), count(9408), count(6_233_088), count(70_553_706_496)
    ('64', '9.4K', '6.2M', '70.6B')
    """
    for unit in ("", "K", "M"):
        if n < 1000:
            return f"{n:.1f}{unit}" if unit else f"{n:.0f}"
        n /= 1000
    return f"{n:.1f}B"


def duration(seconds: float) -> str:
    """``seconds`` for people.

    >>> duration(4.2), duration(75), duration(7384)
    ('4.2 s', '1 min 15 s', '2 h 03 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def _tell(stream: TextIO, value: Any, how: Callable[..., None] = say) -> None:
    """One line; a closed log, or a full disk under it, is no reason to stop working."""
    with suppress(OSError):
        how(value, stream=stream)


def anonymous_memory() -> int:
    """Bytes of private memory of this process (RssAnon), which is what ``--ram`` bounds."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    return int(psutil.Process().memory_info().rss)


class Silent:
    """Says nothing; keeps count, so that a summary can be made."""

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.began = time.monotonic()
        self.peak_memory = 0
        self._lock = threading.Lock()
        self.resumed = 0
        #: seconds since the run began, and bytes that were finished by then
        self.points: list[tuple[float, int]] = []
        self._every_s = _POINT_EVERY_S

    def message(self, text: str) -> None:
        """Ignore it."""

    def start(self, total_bytes: int, done_bytes: int) -> None:
        """Remember where the run begins."""
        self.total, self.done, self.resumed = total_bytes, done_bytes, done_bytes
        self.began = time.monotonic()

    def advance(self, n_bytes: int, name: str) -> None:
        """Count, sample the memory, and show."""
        with self._lock:
            self.done += n_bytes
            self.peak_memory = max(self.peak_memory, anonymous_memory())
            self._keep_point()
            self._show(n_bytes, name)

    def _keep_point(self) -> None:
        """Keep how far the run is, in fewer points the longer it takes."""
        seconds = time.monotonic() - self.began
        if not self.points or seconds >= self.points[-1][0] + self._every_s or self.done >= self.total:
            self.points.append((seconds, self.done))
        if len(self.points) > _MOST_POINTS:
            self.points = self.points[1::2]
            self._every_s *= 2

    def finish(self) -> None:
        """Last sample."""
        self.peak_memory = max(self.peak_memory, anonymous_memory())

    def _show(self, n_bytes: int, name: str) -> None:
        """Nothing."""

    def _left(self) -> float | None:
        """Seconds to go at the rate of this run; None until it has gone on for long enough to have one."""
        made, seconds = self.done - self.resumed, time.monotonic() - self.began
        return (self.total - self.done) * seconds / made if made and seconds >= _RATE_AFTER_S else None


class Bar(Silent):
    """A tqdm bar: bytes, rate, time left, tensor, memory."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._bar: Any = None

    def message(self, text: str) -> None:
        """A line above the bar."""
        if self._bar is not None:
            with suppress(OSError):  # the terminal has gone; the bar itself notices
                self._bar.write(plain(text), file=self._stream)
        else:
            _tell(self._stream, text)

    def start(self, total_bytes: int, done_bytes: int) -> None:
        """Draw the bar."""
        from tqdm import tqdm

        # Without tqdm's own thread, which watches that the bar moves: starting one may fail, or never return.
        unwatched: Any = type("Bar", (tqdm,), {"monitor_interval": 0})
        super().start(total_bytes, done_bytes)
        self._bar = unwatched(
            total=total_bytes, initial=done_bytes, unit="B", unit_scale=True, unit_divisor=1024, file=self._stream,
            dynamic_ncols=True, mininterval=0.2,
        )  # fmt: skip

    def _show(self, n_bytes: int, name: str) -> None:
        self._bar.set_postfix_str(f"{plain(name)}, {size(self.peak_memory)} RAM", refresh=False)
        self._bar.update(n_bytes)

    def finish(self) -> None:
        """Take the bar away."""
        super().finish()
        if self._bar is not None:
            self._bar.close()


class Lines(Silent):
    """One log line every 30 seconds, when stderr is not a terminal."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._next = time.monotonic() + _LINE_EVERY_S

    def message(self, text: str) -> None:
        """One line."""
        _tell(self._stream, text)

    def start(self, total_bytes: int, done_bytes: int) -> None:
        """The first line comes when there is something to tell; kernels may have been compiled until now."""
        super().start(total_bytes, done_bytes)
        self._next = self.began + _LINE_EVERY_S

    def _show(self, n_bytes: int, name: str) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _LINE_EVERY_S
            share, left = 100 * self.done / max(self.total, 1), self._left()
            words = "" if left is None else f" {duration(left)} left,"
            self.message(f"{share:.0f} % of {size(self.total)},{words} {name}, {size(self.peak_memory)} RAM")


class Events(Silent):
    """JSON lines: ``{"event": "message" | "start" | "progress", …}``."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._next = 0.0

    def emit(self, event: str, **values: Any) -> None:
        """Write one event."""
        _tell(self._stream, {"event": event, **values}, say_json)

    def message(self, text: str) -> None:
        """A ``message`` event."""
        self.emit("message", text=text)

    def start(self, total_bytes: int, done_bytes: int) -> None:
        """A ``start`` event."""
        super().start(total_bytes, done_bytes)
        self.emit("start", total=total_bytes, done=done_bytes)

    def _show(self, n_bytes: int, name: str) -> None:
        now = time.monotonic()
        if now >= self._next or self.done >= self.total:
            self._next = now + _EVENT_EVERY_S
            left = self._left()
            self.emit(
                "progress", done=self.done, total=self.total, tensor=name, left_s=None if left is None else round(left, 1),
                rss_anon=self.peak_memory,
            )  # fmt: skip


def reporter(*, quiet: bool, as_json: bool, stream: TextIO | None = None) -> Silent:
    """The reporter that fits the terminal: bar, lines, events or silence. Progress goes to stderr, events to stdout."""
    if as_json:
        return Events(sys.stdout)
    if quiet:
        return Silent()
    stream = stream or sys.stderr
    return Bar(stream) if stream.isatty() else Lines(stream)


@contextmanager
def told_in_errors(reporter: Silent) -> Iterator[None]:
    """Let an error that ends a run report its progress."""
    try:
        yield
    except StreamconvError as e:
        e.progress = (reporter.done, reporter.total, reporter.done - reporter.resumed)
        raise
