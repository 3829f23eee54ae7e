"""How long to go on trying when the other side does not answer as it should."""

from __future__ import annotations

import email.utils
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...errors import NetworkError, Stopped, StreamconvError

#: the draft of a standard the hub follows: ``"api";r=0;t=55`` = nothing remains, more in 55 s
_RATE_LIMIT = re.compile(r'"[^"]*"\s*;\s*r=(\d+)\s*;\s*t=(\d+)')


@dataclass(frozen=True)
class RetryPolicy:
    """Limits of retrying; tries are counted from the last progress.

    Attributes
    ----------
    tries : failures in a row before giving up
    first_s, longest_s : pause after the first failure, doubled with each further one up to the longest
    connect_s, read_s : how long a connection, and the next bytes of an answer, may take
    slow_bytes_per_s : an answer that arrives slower than this for ``read_s`` counts as stalled
    retry_after_s : the longest pause that the other side may ask for
    """

    tries: int = 10
    first_s: float = 0.5
    longest_s: float = 30.0
    connect_s: float = 10.0
    read_s: float = 30.0
    slow_bytes_per_s: float = 1024.0
    retry_after_s: float = 600.0


#: what a line at home and a busy hub need
PATIENT = RetryPolicy()


class Retries:
    """Failures in a row of one request.

    Parameters
    ----------
    stop : ends a pause at once
    """

    def __init__(self, policy: RetryPolicy, stop: threading.Event | None = None) -> None:
        self._policy = policy
        self._stop = stop or threading.Event()
        self._failures = 0.0

    def progress(self) -> None:
        """Data arrived: reset the count."""
        self._failures = 0

    def failed(
        self, reason: str, retry_after_s: float | None = None, error: Callable[[], StreamconvError] | None = None
    ) -> None:
        """Pause before the next try.

        Parameters
        ----------
        reason : what went wrong
        retry_after_s : how long the other side asked to wait
        error : what to raise in the end, for answers that are wrong rather than absent; these are accepted sooner

        Raises
        ------
        NetworkError : it has failed too often, or asked for too long a pause
        Stopped : it is no longer wanted
        """
        p = self._policy
        self._failures += 1 if error is None else 3
        if self._failures > p.tries or (retry_after_s or 0) > p.retry_after_s:
            if error is not None:
                raise error()
            waiting = f"; it asks to wait {retry_after_s:.0f} s" if retry_after_s else ""
            raise NetworkError(
                f"{reason}{waiting}", "What was downloaded is kept. Run the same command again to resume."
            )
        pause = min(p.first_s * 2 ** (self._failures - 1), p.longest_s)
        # Spread out, so that many connections do not come back at the same moment.
        pause = max(retry_after_s or 0, pause * random.uniform(0.5, 1))
        if self._stop.wait(pause):
            raise Stopped("the transfer was stopped", "Run the same command again to resume.")


def asked_pause(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait: its Retry-After, in seconds or as a date, or its rate limit.

    >>> asked_pause({"Retry-After": "7"}), asked_pause({"RateLimit": '"api";r=0;t=55'}), asked_pause({})
    (7.0, 55.0, None)
    """
    after = headers.get("Retry-After", "").strip()
    if after.isdecimal():
        return float(after)
    if after:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError, OSError):
            pass
    limit = _RATE_LIMIT.search(headers.get("RateLimit", ""))
    return float(limit[2]) if limit and limit[1] == "0" else None
