"""What the hub says of a model: its commit and the files of it. Whatever it answers, memory, time and tries are bounded."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import urllib3
from urllib3.exceptions import HTTPError

from ...errors import BadInput
from ..hostile_json import NotJson, parse_json
from ..naming import shown
from .errors import one_line, unreachable
from .model import HubFile, Reference, hub_file, is_commit, require_distinct
from .retries import Retries, RetryPolicy, asked_pause
from .session import MAX_REDIRECTS, REDIRECTS, Session, followed, host_of, is_same_origin

#: worth another try: nothing wrong with the request
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
#: of one answer: 1000 files, which is a page of a listing, have 0.4 MB
_MAX_ANSWER_BYTES = 32 << 20
#: of a whole listing; the hub advises against more than 100 000 files
_MAX_PAGES, _MAX_FILES, _MAX_LISTING_BYTES = 1000, 200_000, 256 << 20
#: as many times as long as the next bytes may take, the whole answer may
_ANSWER_READS = 10
_NEXT = re.compile(r"<([^<>]*)>\s*;[^,<]*\brel=\"?next\b", re.IGNORECASE)
_AGAIN = "Try again later, or tell the model's owner."


class _Failed(Exception):
    """A try that failed, why, and how long the hub asks to wait."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.retry_after_s = reason, retry_after_s


class Api:
    """Asks the hub of one model.

    Parameters
    ----------
    tries : counts failures

    Errors of all methods: NetworkError, InputMissing, NoPermission; BadInput for an invalid answer.
    """

    def __init__(self, session: Session, ref: Reference, policy: RetryPolicy, tries: Retries) -> None:
        self._session, self._ref, self._policy, self._retries = session, ref, policy, tries

    def commit(self) -> str:
        """The commit that the reference means now."""
        url = f"{self._session.endpoint}/api/models/{self._ref.repo}/revision/{quote(self._ref.revision, safe='')}"
        answer, _, _ = self._ask(url)
        commit = answer.get("sha") if isinstance(answer, dict) else None
        if not isinstance(commit, str) or not is_commit(commit):
            raise self._wrong(f"returned {shown(str(commit))}, which is not a commit id")
        return commit

    def files(self, commit: str) -> dict[str, HubFile]:
        """The files of ``commit`` by path."""
        found: dict[str, HubFile] = {}
        for entry in self._entries(commit):
            if not isinstance(entry, dict):
                raise self._wrong("lists something that is not a file")
            if entry.get("type") != "file":
                continue
            large = entry.get("lfs")
            kind, facts = ("sha256", large) if isinstance(large, dict) else ("git-sha1", entry)
            file = hub_file(self._ref.repo, commit, entry.get("path"), facts.get("size"), kind, facts.get("oid"))
            if file.path in found:
                raise self._wrong(f"lists {shown(file.path)} twice")
            found[file.path] = file
            if len(found) > _MAX_FILES:
                raise self._wrong(f"lists more than {_MAX_FILES} files")
        require_distinct(found, str(self._ref))
        return found

    def _entries(self, commit: str) -> Iterator[Any]:
        """What the listing holds, page by page."""
        url = f"{self._session.endpoint}/api/models/{self._ref.repo}/tree/{commit}?recursive=True&expand=False"
        seen, left = {url}, _MAX_LISTING_BYTES
        for _ in range(_MAX_PAGES):
            answer, size, (url, link) = self._ask(url)
            left -= size
            if not isinstance(answer, list) or left < 0:
                raise self._wrong("sends an endless listing" if left < 0 else "sends no listing")
            yield from answer
            following = _NEXT.search(link)
            if following is None:
                return
            target = followed(url, following[1])
            if not target or not (self._session.is_hub(target) or is_same_origin(target, url)):
                raise self._wrong("redirects to another host for the rest of the listing")
            if target in seen:
                raise self._wrong("sends a listing whose pages form a cycle")
            seen.add(target)
            url = target
        raise self._wrong(f"sends a listing of more than {_MAX_PAGES} pages")

    def _ask(self, url: str) -> tuple[Any, int, tuple[str, str]]:
        """An answer, its bytes, where it came from and its ``Link``."""
        while True:
            try:
                body, where, headers = self._once(url)
                value = parse_json(body)
                self._retries.progress()
                return value, len(body), (where, headers.get("Link", ""))
            except NotJson as e:
                raise self._wrong(f"returned something that {e}") from None
            except _Failed as e:
                self._retries.failed(f"{self._ref}: {e.reason}", e.retry_after_s)
            except (HTTPError, OSError) as e:
                self._retries.failed(unreachable(str(self._ref), self._session.endpoint, e).message)

    def _once(self, url: str) -> tuple[bytes, str, Mapping[str, str]]:
        for _ in range(MAX_REDIRECTS):
            response = self._session.send(url, {"accept": "application/json"})
            try:
                target = response.headers.get("Location")
                if response.status not in REDIRECTS or not target:
                    self._require_good(response, url)
                    return self._body(response, url), url, response.headers
                url = followed(url, target)
                if not url:
                    raise self._wrong("redirects to an address that is not http or https")
            finally:
                response.close()
        raise _Failed(f"more than {MAX_REDIRECTS} redirections")

    def _require_good(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        status, headers = response.status, response.headers
        if status in TRANSIENT:
            raise _Failed(f"{host_of(url)} answered {status}", asked_pause(headers))
        if status != 200:
            raise self._session.refusal(url, status, headers, str(self._ref))
        encoding = headers.get("Content-Encoding", "identity")
        if encoding != "identity":  # a few bytes can become any number
            raise self._wrong(f"answered in an encoding that was not requested ({one_line(encoding, 40)})")

    def _body(self, response: urllib3.BaseHTTPResponse, url: str) -> bytes:
        parts, size = [], 0
        until = time.monotonic() + _ANSWER_READS * self._policy.read_s
        while data := response.read1(64 << 10, decode_content=False):
            parts.append(data)
            size += len(data)
            if size > _MAX_ANSWER_BYTES:
                raise self._wrong(f"answered more than {_MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > until:
                raise _Failed(f"{host_of(url)} sent only {size} bytes in {_ANSWER_READS * self._policy.read_s:.0f} s")
        return b"".join(parts)

    def _wrong(self, what: str) -> BadInput:
        return BadInput(f"{self._ref}: {self._session.endpoint} {what}", _AGAIN)
