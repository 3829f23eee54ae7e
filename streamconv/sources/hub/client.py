"""Ranged reading from the hub, over whatever the line does.

A file is asked for at the hub, which answers small ones itself and sends on to a storage host for large ones. The token goes
to the hub only. Where a file lies is remembered until the storage host no longer accepts the address.

What is checked of every answer: that it is the range asked for (206) or the whole file (200), of the length and with the
digest and commit that were pinned. What is only late, cut or overloaded is tried again from the byte reached; what
contradicts the pinned facts is tried again too, since such answers may come from one bad machine, and refused soon.

urllib3 and not the client that huggingface_hub uses: that one takes five times the processor per byte, most of it holding
the interpreter's lock, which a conversion running beside needs (3.0 against 0.5 s per GiB measured over loopback).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

import urllib3
from urllib3.exceptions import HTTPError

from ...errors import BadInput, NetworkError, Stopped, StreamconvError
from .api import TRANSIENT
from .errors import one_line
from .model import HubFile
from .resolving import is_offline
from .retries import PATIENT, Retries, RetryPolicy, asked_pause
from .session import MAX_REDIRECTS, REDIRECTS, Session, followed, host_of

#: bytes handed on at a time; what a cut connection costs is less than this
_BLOCK_BYTES = 128 << 10
#: an answer with this many bytes was progress
_PROGRESS_BYTES = 64 << 10
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class _Failed(Exception):
    """A try that failed; ``error`` makes what to raise when it keeps failing so."""

    def __init__(
        self, reason: str, retry_after_s: float | None = None, error: Callable[[], StreamconvError] | None = None
    ):
        super().__init__(reason)
        self.reason, self.retry_after_s, self.error = reason, retry_after_s, error


@dataclass
class _Answer:
    """A good answer: its body is the file from byte ``first``."""

    response: urllib3.BaseHTTPResponse
    first: int


class HubClient:
    """Reads files of pinned commits; an ``Origin`` of the engine's transfer.

    Parameters
    ----------
    token, endpoint : default to what huggingface_hub finds
    connections : as many are kept open
    offline : refuse to read anything
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        endpoint: str | None = None,
        policy: RetryPolicy = PATIENT,
        connections: int = 8,
        offline: bool = False,
    ) -> None:
        self._policy = policy
        self._session = Session(token, endpoint, policy, connections)
        self._offline = offline
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._places: dict[HubFile, str] = {}
        self._etags: dict[HubFile, str] = {}
        self._open: set[urllib3.BaseHTTPResponse] = set()

    def read(self, remote: HubFile, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Pairs of offset and bytes, in order, that cover ``start..stop`` of a file.

        A server that ignores ranges makes them begin at 0 and go on to the end of the file.

        Raises
        ------
        NetworkError : no answer, again and again
        BadInput : answers that contradict what the hub lists
        NoPermission, InputMissing : the hub refuses
        Stopped : after ``abort``
        """
        file, path = remote, remote.path
        if self._offline or is_offline():
            raise NetworkError(
                f"{file.repo}: {path} is not complete, and offline mode is on",
                "Allow the network: without --offline, HF_HUB_OFFLINE=0.",
            )
        retries = Retries(self._policy, self._stop)
        at = start
        while at < stop:
            answer, came = None, 0
            try:
                answer = self._ask(file, at, stop)
                for offset, data in self._body(answer, file, stop):
                    yield offset, data
                    came += max(0, offset + len(data) - at)
                    at = max(at, offset + len(data))
                    if came >= _PROGRESS_BYTES:
                        retries.progress()
                if at < stop:
                    raise _Failed(f"{path}: the answer ended at byte {at} of {stop}")
            except _Failed as e:
                retries.failed(e.reason, e.retry_after_s, e.error)
            except (HTTPError, OSError) as e:
                if self._stop.is_set():
                    raise Stopped("the transfer was stopped", "Run the same command again to resume.") from None
                retries.failed(f"{path}: {self._where(file)}: {e or type(e).__name__}")
            finally:
                if answer is not None:
                    self._finish(answer)

    def abort(self) -> None:
        """Make every ``read`` under way end soon."""
        self._stop.set()
        with self._guard:
            for response in self._open:
                with suppress(Exception):  # it may just be ending by itself
                    response.shutdown()

    def _body(self, answer: _Answer, file: HubFile, stop: int) -> Iterator[tuple[int, bytes]]:
        at = answer.first
        end = stop if answer.response.status == 206 else file.size
        window, window_bytes = time.monotonic(), 0
        while at < end:
            data = answer.response.read1(min(_BLOCK_BYTES, end - at), decode_content=False)
            if not data:
                return
            yield at, data
            at += len(data)
            window_bytes += len(data)
            elapsed = time.monotonic() - window
            if elapsed > self._policy.read_s:
                if window_bytes < self._policy.slow_bytes_per_s * elapsed:
                    raise _Failed(f"{file.path}: only {window_bytes} bytes in {elapsed:.0f} s from {self._where(file)}")
                window, window_bytes = time.monotonic(), 0

    def _finish(self, answer: _Answer) -> None:
        with self._guard:
            self._open.discard(answer.response)
        # A connection whose answer was read to the end is reused, any other is worth nothing.
        if answer.response.closed:
            answer.response.release_conn()
        else:
            answer.response.close()

    def _ask(self, file: HubFile, at: int, stop: int) -> _Answer:
        """A checked answer that begins at ``at`` or, from a server that ignores ranges, at 0."""
        place = self._places.get(file)
        url = place or self._url(file)
        for _ in range(MAX_REDIRECTS):
            response = self._send(url, {"Range": f"bytes={at}-{stop - 1}"})
            target = response.headers.get("Location")
            if self._session.is_hub(url):
                self._check_hub(file, response)
            if response.status in REDIRECTS and target:
                response.close()
                url = followed(url, target)
                if not url:
                    raise _Failed(f"{file.path}: redirected to an address that is not http or https")
                if not self._session.is_hub(url):
                    self._places[file] = url
                continue
            if response.status in (200, 206) and self._is_same(file, response, fresh=url != place):
                return self._checked(file, response, at)
            if url == place:  # signed addresses expire: ask the hub for another
                response.close()
                self._places.pop(file, None)
                place, url = None, self._url(file)
                continue
            self._refuse(file, response, url, at)
        raise _Failed(f"{file.path}: more than {MAX_REDIRECTS} redirections")

    def _refuse(self, file: HubFile, response: urllib3.BaseHTTPResponse, url: str, at: int) -> None:
        """Raise what an answer with an unwanted status means."""
        status, headers, host = response.status, response.headers, host_of(url)
        response.close()
        self._places.pop(file, None)
        if status == 416:
            text = f"{file.path}: {host} says the file ends before byte {at}, the hub lists {file.size} bytes"
            raise _Failed(text, error=lambda: BadInput(text, "Try again later, or tell the model's owner."))
        name = f"{file.repo}/{file.path}@{file.commit[:12]}"
        error = self._session.refusal(url, status, headers, name)
        # A storage host refuses addresses that have expired; one that speaks as a hub does, or asks who we are, means us.
        means_us = self._session.is_hub(url) or status == 401 or "X-Error-Code" in headers
        if status in TRANSIENT or not means_us:
            lasting = (lambda: error) if status in (403, 404) else None
            raise _Failed(f"{file.path}: {host} answered {status}", asked_pause(headers), lasting)
        raise error

    def _is_same(self, file: HubFile, response: urllib3.BaseHTTPResponse, fresh: bool) -> bool:
        """Whether the storage host still means the same object; after a new word from the hub it may be another copy."""
        etag = _plain(response.headers.get("ETag", ""))
        if not fresh and etag and self._etags.get(file, etag) != etag:
            return False
        self._etags[file] = etag
        return True

    def _checked(self, file: HubFile, response: urllib3.BaseHTTPResponse, at: int) -> _Answer:
        """The answer, if it says what it must."""
        first, size, wrong = 0, response.headers.get("Content-Length", str(file.size)), ""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            wrong = f"sends it encoded ({one_line(response.headers['Content-Encoding'], 40)})"
        if response.status == 206:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != at:
                wrong = f"answers byte {at} with Content-Range {one_line(response.headers.get('Content-Range', 'of nothing'), 80)}"
            else:
                first, size = at, str(file.size) if found[3] == "*" else found[3]
        if size != str(file.size):
            wrong = f"has {one_line(size, 40)} bytes of it, the hub lists {file.size}"
        if wrong:
            response.close()
            self._places.pop(file, None)
            text = f"{file.path}: {self._where(file)} {wrong}"
            raise _Failed(text, error=lambda: BadInput(text, "Try again later, or tell the model's owner."))
        with self._guard:
            self._open.add(response)
        return _Answer(response, first)

    def _check_hub(self, file: HubFile, response: urllib3.BaseHTTPResponse) -> None:
        """What the hub says beside an answer is what it said when the model was pinned."""
        if response.status >= 400:
            return
        headers = response.headers
        digest = _plain(
            headers.get("X-Linked-Etag", "") or ("" if response.status in REDIRECTS else headers.get("ETag", ""))
        )
        said = [
            ("digest", file.key, digest if _DIGEST.fullmatch(digest) and len(digest) == len(file.key) else ""),
            ("size", str(file.size), headers.get("X-Linked-Size", "")),
            ("commit", file.commit, headers.get("X-Repo-Commit", "")),
        ]
        wrong = [f"{what} {one_line(now, 80)} instead of {was}" for what, was, now in said if now and now != was]
        if wrong:
            response.close()
            text = f"{file.path}: the hub says {', '.join(wrong)}"
            raise _Failed(
                text,
                error=lambda: BadInput(text, "What was downloaded is kept. Resolve the revision again: --refresh."),
            )

    def _send(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        if self._stop.is_set():
            raise Stopped("the transfer was stopped", "Run the same command again to resume.")
        return self._session.send(url, headers)

    def _url(self, file: HubFile) -> str:
        return f"{self._session.endpoint}/{file.repo}/resolve/{file.commit}/{quote(file.path)}"

    def _where(self, file: HubFile) -> str:
        return host_of(self._places.get(file, self._session.endpoint))


def _plain(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
