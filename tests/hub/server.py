"""A hub on this machine: lists models, redirects large files to a storage host, serves ranges, counts, and misbehaves as told.

with Hub() as hub:
    hub.add("org/model", folder)            # a commit; returns its id
    hub.fault = lambda ask: Cut(1000)       # what happens to the next answers
    HF_ENDPOINT=hub.url

server.py FOLDER [ORG/NAME [BYTES_PER_S]]   serve a folder until killed, each connection at most so fast; prints the address
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: larger files are stored elsewhere, as on the real hub
LFS_BYTES = 10_000
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Ask:
    """A request for bytes of a file: ``start..stop`` of ``path``; ``number`` counts them from 1."""

    number: int
    path: str
    start: int
    stop: int
    at_hub: bool


@dataclass(frozen=True)
class Cut:
    """The connection ends after ``after`` bytes."""

    after: int


@dataclass(frozen=True)
class Stall:
    """Nothing comes for ``seconds`` after ``after`` bytes, then the connection ends."""

    after: int
    seconds: float


@dataclass(frozen=True)
class Status:
    """An answer without the bytes."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Whole:
    """The range is ignored: 200 and the whole file."""


@dataclass(frozen=True)
class Wrong:
    """Byte ``at`` of the file comes flipped."""

    at: int


@dataclass(frozen=True)
class Headers:
    """These headers replace those of the answer."""

    headers: dict[str, str]


@dataclass(frozen=True)
class Slow:
    """``bytes_per_s`` in the long run: as over a line, what a busy client has not taken yet goes on arriving meanwhile."""

    bytes_per_s: float


Fault = Cut | Stall | Status | Whole | Wrong | Headers | Slow


@dataclass(frozen=True)
class Stored:
    """A file of a commit."""

    place: Path
    size: int
    sha256: str
    git: str

    @property
    def is_lfs(self) -> bool:
        return self.size >= LFS_BYTES

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.git


class Hub:
    """The two servers and what they count.

    Attributes
    ----------
    fault : told of every request for bytes; what it returns happens
    served : path -> (start, stop) of the bytes that were sent
    requests : all requests of any kind, method and path
    tokens : authorization headers that the storage host was sent, which must be none
    """

    def __init__(self) -> None:
        self.models: dict[str, dict[str, dict[str, Stored]]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.fault: Callable[[Ask], Fault | None] = lambda ask: None
        self.api_fault: Callable[[str], Status | None] = lambda path: None
        self.served: dict[str, list[tuple[int, int]]] = {}
        self.requests: list[str] = []
        self.tokens: list[str] = []
        self.private_token = ""
        self._lock = threading.Lock()
        self._asked = 0
        self._answers = 0
        self._servers = [_Server(("127.0.0.1", 0), _Handler) for _ in range(2)]
        for server in self._servers:
            server.hub = self
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def storage_url(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    def add(
        self, repo: str, folder: Path, branch: str = "main", described: Callable[[Path], Stored] | None = None
    ) -> str:
        """Commit the files of ``folder`` to ``branch``; the commit's id, which follows from them.

        ``described`` knows the digests of files that no test changes.
        """
        stored = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            stored[path.relative_to(folder).as_posix()] = (described or stored_file)(path)
        commit = hashlib.sha1(json.dumps([(n, s.sha256) for n, s in stored.items()]).encode()).hexdigest()
        self.models.setdefault(repo, {})[commit] = stored
        self.branches.setdefault(repo, {})[branch] = commit
        return commit

    def bytes_served(self, path: str = "") -> int:
        """Bytes sent of ``path``, of all files by default."""
        with self._lock:
            return sum(b - a for name, spans in self.served.items() if path in ("", name) for a, b in spans)

    def forget(self) -> None:
        """Count from zero."""
        with self._lock:
            self.served.clear()
            self.requests.clear()

    def ask(self, path: str, start: int, stop: int, at_hub: bool) -> Ask:
        with self._lock:
            self._asked += 1
            return Ask(self._asked, path, start, stop, at_hub)

    def sent(self, path: str, start: int, stop: int) -> None:
        with self._lock:
            self.served.setdefault(path, []).append((start, stop))

    def under_way(self, change: int) -> None:
        with self._lock:
            self._answers += change

    def wait_until_quiet(self) -> None:
        """Until every answer has ended, those to dead clients too, and is counted."""
        while self._answers:
            time.sleep(0.005)

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, Stored]] | None:
        commits = self.models.get(repo, {})
        commit = self.branches.get(repo, {}).get(revision, revision)
        return (commit, commits[commit]) if commit in commits else None

    def by_digest(self, sha256: str) -> tuple[str, Stored]:
        for commits in self.models.values():
            for files in commits.values():
                for name, stored in files.items():
                    if stored.sha256 == sha256:
                        return name, stored
        raise KeyError(sha256)


def stored_file(path: Path) -> Stored:
    """Size and digests of a file."""
    size = path.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    with path.open("rb") as f:
        while block := f.read(_BLOCK):
            sha256.update(block)
            if size < LFS_BYTES:
                git.update(block)
    return Stored(path, size, sha256.hexdigest(), git.hexdigest())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        if path.startswith("/storage/"):
            if token := self.headers.get("Authorization"):
                hub.tokens.append(token)
            name, stored = hub.by_digest(path.split("/")[2])
            self._bytes(name, stored, {"ETag": f'"{stored.etag}"'}, at_hub=False)
            return
        wanted = f"Bearer {hub.private_token}"
        if hub.private_token and self.headers.get("Authorization") != wanted:
            self._refuse(401, "GatedRepo" if "gated" in path else "RepoNotFound")
        elif path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"))
        else:
            self._resolve(path)

    def _api(self, path: str) -> None:
        hub = self.server.hub
        if (fault := hub.api_fault(path)) is not None:
            self._json({"error": "no"}, fault.code, fault.headers)
            return
        parts = path.split("/")
        repo, kind, revision = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "revision", "/".join(parts[3:])
        if repo not in hub.models:
            self._refuse(404, "RepoNotFound")
            return
        found = hub.find(repo, revision or "main")
        if found is None:
            self._refuse(404, "RevisionNotFound")
            return
        commit, files = found
        if kind == "revision":
            siblings = [{"rfilename": name} for name in files]
            self._json({"_id": "1", "id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "tags": []})
            return
        entries = []
        for name, s in files.items():
            entry: dict[str, object] = {"type": "file", "oid": s.git, "size": s.size, "path": name}
            if s.is_lfs:
                entry["lfs"] = {"oid": s.sha256, "size": s.size, "pointerSize": 134}
            entries.append(entry)
        self._json(entries)

    def _resolve(self, path: str) -> None:
        hub = self.server.hub
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        model = hub.find(found[1], found[2]) if found else None
        if found is None or model is None or found[3] not in model[1]:
            self._refuse(404, "EntryNotFound")
            return
        commit, stored = model[0], model[1][found[3]]
        if not stored.is_lfs:
            self._bytes(found[3], stored, {"ETag": f'"{stored.git}"', "X-Repo-Commit": commit}, at_hub=True)
            return
        fault = hub.fault(hub.ask(found[3], 0, 0, True))
        headers = {
            "Location": f"{hub.storage_url}/storage/{stored.sha256}?signature=1", "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{stored.sha256}"', "X-Linked-Size": str(stored.size), "Content-Length": "0",
        }  # fmt: skip
        if isinstance(fault, Status):
            self._empty(fault.code, fault.headers)
            return
        self._empty(302, headers | (fault.headers if isinstance(fault, Headers) else {}))

    def _bytes(self, name: str, stored: Stored, headers: dict[str, str], at_hub: bool) -> None:
        hub = self.server.hub
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        start, stop, code = 0, stored.size, 200
        if found:
            start, code = int(found[1]), 206
            stop = min(stored.size, int(found[2]) + 1 if found[2] else stored.size)
        fault = hub.fault(hub.ask(name, start, stop, at_hub))
        if isinstance(fault, Status):
            self._empty(fault.code, fault.headers)
            return
        if found and start >= stored.size:
            self._empty(416, {"Content-Range": f"bytes */{stored.size}"})
            return
        if isinstance(fault, Whole):
            start, stop, code = 0, stored.size, 200
        headers = {**headers, "Content-Length": str(stop - start), "Accept-Ranges": "bytes"}
        if code == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.size}"
        self.send_response(code)
        for key, value in {**headers, **(fault.headers if isinstance(fault, Headers) else {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.flush()
        if self.command != "HEAD":
            self._send(name, stored, start, stop, fault)

    def _send(self, name: str, stored: Stored, start: int, stop: int, fault: Fault | None) -> None:
        hub, at = self.server.hub, start
        hub.under_way(1)
        last = min(stop, start + fault.after) if isinstance(fault, Cut | Stall) else stop
        began = time.monotonic()
        try:
            with stored.place.open("rb", buffering=0) as f:
                while at < last:
                    n = min(_BLOCK, last - at)
                    if isinstance(fault, Slow):
                        n = min(n, max(1, int(fault.bytes_per_s / 20)))
                        time.sleep(max(0, began + (at + n - start) / fault.bytes_per_s - time.monotonic()))
                    if isinstance(fault, Wrong) and at <= fault.at < at + n:
                        data = bytearray(os.pread(f.fileno(), n, at))
                        data[fault.at - at] ^= 0xFF
                        self.connection.sendall(data)
                        at += n
                    else:
                        at += os.sendfile(self.connection.fileno(), f.fileno(), at, n)
        finally:
            hub.sent(name, start, at)
            hub.under_way(-1)
        if last < stop or isinstance(fault, Cut | Stall):
            if isinstance(fault, Stall):
                time.sleep(fault.seconds)
            self.close_connection = True
            self.connection.shutdown(2)

    def _json(self, value: object, code: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        for key, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, code: int, error: str) -> None:
        self._json({"error": error}, code, {"X-Error-Code": error, "X-Error-Message": error})

    def _empty(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": "0", **headers}.items():
            self.send_header(key, value)
        self.end_headers()


def main() -> None:
    hub = Hub()
    hub.add(sys.argv[2] if len(sys.argv) > 2 else "org/model", Path(sys.argv[1]))
    if len(sys.argv) > 3:
        hub.fault = lambda ask: Slow(float(sys.argv[3]))
    print(hub.url, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
