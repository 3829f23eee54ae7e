"""A hub that is hostile or broken in what it says of a model: bounded, refused by name, and told no secret that is not its own."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from combined import combined
from hub_cases import MODEL, WEIGHTS
from huggingface_hub import constants
from running import Run
from server import Ask, Headers, Hub, Status

from streamconv.cli import main
from streamconv.errors import BadInput
from streamconv.sources.hub import api
from streamconv.sources.hub.errors import one_line
from streamconv.sources.hub.model import hub_file, parse_reference
from streamconv.sources.hub.retries import PATIENT, asked_pause
from streamconv.sources.hub.session import Session, followed

COMMIT = "c" * 40
#: status, header fields, body
Answer = tuple[int, dict[str, str], bytes]


class Scripted:
    """A host that answers as a function has it.

    Attributes
    ----------
    answer : path with query -> the answer
    asked, tokens : paths, and authorization header fields, in their order
    """

    def __init__(self) -> None:
        self.answer: Callable[[str], Answer] = lambda path: (404, {}, b"")
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                host.asked.append(self.path)
                host.tokens.append(self.headers.get("Authorization"))
                status, fields, body = host.answer(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **fields}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def host() -> Iterator[Scripted]:
    """A host in the place of the hub."""
    scripted = Scripted()
    yield scripted
    scripted.close()


@pytest.fixture
def other() -> Iterator[Scripted]:
    """Another one."""
    scripted = Scripted()
    yield scripted
    scripted.close()


@pytest.fixture
def ask(host: Scripted, here: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Function that fetches org/model from ``host``, with a token."""
    monkeypatch.setattr(constants, "ENDPOINT", host.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return lambda *more: here("fetch", "org/model", *more)


def as_json(value: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def entry(path: str, **facts: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": 3, "oid": "a" * 40, **facts}


def listing(*pages: Answer) -> Callable[[str], Answer]:
    """Answers of a hub whose listing has these pages; the cursor says which."""

    def answer(path: str) -> Answer:
        if "/revision/" in path:
            return as_json({"sha": COMMIT})
        if "/resolve/" in path:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        return pages[int(path.rpartition("cursor=")[2]) if "cursor=" in path else 0]

    return answer


def linked(value: Any, target: str) -> Answer:
    status, fields, body = as_json(value)
    return status, {**fields, "Link": f'<{target}>; rel="next"'}, body


def test_a_listing_comes_page_by_page(host: Scripted, ask: Run) -> None:
    base = f"/api/models/org/model/tree/{COMMIT}?recursive=True&expand=False"
    host.answer = listing(
        linked([entry("config.json")], f"{host.url}{base}&cursor=1"),
        linked([entry("a"), {"type": "directory", "path": "d"}], f"{base}&cursor=2"),
        as_json([entry("d/b")]),
    )
    failed = ask()
    assert failed.code == 66, failed.err  # no weights
    assert [p.rpartition("&")[2] for p in host.asked if "/tree/" in p] == ["expand=False", "cursor=1", "cursor=2"]
    assert set(host.tokens) == {"Bearer hf_secret"}


def test_the_token_does_not_follow_a_listing_to_another_host(host: Scripted, other: Scripted, ask: Run) -> None:
    other.answer = lambda path: as_json([])
    host.answer = listing(linked([entry("config.json")], f"{other.url}/api/rest"))
    refused = ask()
    assert refused.code == 65, refused.err
    assert "another host" in refused.err
    assert other.asked == []


@pytest.mark.parametrize(("status", "of"), combined([301, 302, 303, 307, 308], ["/revision/", "/tree/", "/resolve/"]))
def test_the_token_does_not_follow_a_redirection_to_another_host(
    host: Scripted, other: Scripted, ask: Run, status: int, of: str
) -> None:
    plain = listing(as_json([entry("config.json", oid="0" * 40)]))

    def answer(path: str) -> Answer:
        return (status, {"Location": f"{other.url}{path}"}, b"") if of in path else plain(path)

    host.answer = answer
    other.answer = lambda path: plain(path) if "/api/" in path else (404, {}, b"")
    assert ask().code in (65, 66, 69)
    assert other.asked
    assert set(other.tokens) == {None}
    assert set(host.tokens) == {"Bearer hf_secret"}


@pytest.mark.parametrize(("token", "status", "of", "refusal"), combined(
    ["", "hf_secret"], [308, 307], ["/revision/", "/tree/", "/resolve/"],
    [(401, {}), (403, {"X-Error-Code": "GatedRepo"}), (401, {"X-Error-Code": "RepoNotFound"})],
))  # fmt: skip
def test_a_refusal_by_the_host_behind_a_mirror_names_that_host_and_says_who_got_the_token(
    host: Scripted, other: Scripted, ask: Run, monkeypatch: pytest.MonkeyPatch, status: int, of: str, token: str,
    refusal: tuple[int, dict[str, str]],
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", token)
    plain = listing(as_json([entry("config.json", oid="0" * 40)]))
    host.answer = lambda path: (status, {"Location": f"{other.url}{path}"}, b"") if of in path else plain(path)
    other.answer = lambda path: (*refusal, b"")
    refused = ask()
    if refusal[1].get("X-Error-Code") == "RepoNotFound" and token:
        assert refused.code == 66, refused.err
    else:
        assert refused.code == 77, refused.err
        assert ("it was not given the token" if token else "there is no token") in refused.err
        assert f"Set HF_ENDPOINT to {other.url.removeprefix('http://')}" in refused.err
    assert f"{other.url.removeprefix('http://')}, to which {host.url} redirects" in refused.err
    assert len(other.asked) == 1, "what is final is not asked again"
    assert set(other.tokens) == {None}


@pytest.mark.parametrize("status", [403, 404])
def test_a_storage_host_that_goes_on_refusing_is_named_as_the_one_that_refuses(
    host: Scripted, other: Scripted, ask: Run, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("streamconv.sources.hub.retries.random.uniform", lambda a, b: 0)
    plain = listing(as_json([entry("config.json", oid="0" * 40)]))
    host.answer = lambda path: (302, {"Location": f"{other.url}/x"}, b"") if "/resolve/" in path else plain(path)
    other.answer = lambda path: (status, {}, b"")
    refused = ask()
    assert refused.code == (77 if status == 403 else 66), refused.err
    assert f"{other.url.removeprefix('http://')}, to which {host.url} redirects" in refused.err


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "http://127.0.0.1:99999999/", "//", "http:///x"]
)
@pytest.mark.parametrize("of", ["/revision/", "/resolve/"])
def test_a_redirection_to_no_address_of_the_web_is_refused(host: Scripted, ask: Run, target: str, of: str) -> None:
    plain = listing(as_json([entry("config.json")]))
    host.answer = lambda path: (302, {"Location": target}, b"") if of in path else plain(path)
    assert ask().code in (65, 69)


def test_redirections_in_a_circle_end(host: Scripted, ask: Run) -> None:
    host.answer = lambda path: (302, {"Location": path}, b"")
    failed = ask()
    assert failed.code == 69
    assert "10 redirections" in failed.err


@pytest.mark.parametrize(
    ("target", "words"),
    [("&cursor=0", "form a cycle"), ("&cursor=0&n={n}", "20 pages")],
    ids=["circle", "ever new"],
)
def test_a_listing_without_end_is_refused(
    host: Scripted, ask: Run, target: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_MAX_PAGES", 20)
    base = f"/api/models/org/model/tree/{COMMIT}?recursive=True&expand=False"
    host.answer = lambda path: (
        as_json({"sha": COMMIT}) if "/revision/" in path else linked([], base + target.format(n=len(host.asked)))
    )
    refused = ask()
    assert refused.code == 65, refused.err
    assert words in refused.err
    assert len(host.asked) <= 21


BAD = {
    "no json": b"<html>", "no utf-8": b'"\xff"', "a number": b"7", "nested": b"[" * 100_000, "no objects": b"[7]",
    "deep": b'{"a":' * 3000, "empty": b"", "long": b" " * (33 << 20) + b"[]",
}  # fmt: skip


@pytest.mark.parametrize("of", ["/revision/", "/tree/"])
@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_an_answer_that_is_none_is_65(host: Scripted, ask: Run, body: bytes, of: str) -> None:
    plain = listing(as_json([entry("config.json")]))
    host.answer = lambda path: (200, {}, body) if of in path else plain(path)
    refused = ask()
    assert refused.code == 65, refused.err
    assert "org/model" in refused.err


def test_answers_that_grow_take_no_memory(host: Scripted, environment: dict[str, str], tmp_path: Path) -> None:
    bombs = {
        "gzip": (200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(200 << 20))),
        "objects": (200, {}, b"[" + b"{}," * (8 << 20) + b"{}]"),
    }
    for name, bomb in bombs.items():
        host.answer = lambda path, bomb=bomb: as_json({"sha": COMMIT}) if "/revision/" in path else bomb
        code = (
            "import re, sys; from streamconv.cli import main; code = main(['fetch', 'org/model']);"
            "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | {"HF_ENDPOINT": host.url, "PATH": "", "HOME": str(tmp_path)},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 65, f"{name}: {done.stderr}"
        assert int(done.stdout) < 300 << 10, f"{name}: {done.stdout}"


NAMES = {
    "surrogate": "\ud800.json", "control": "a\x1b[2J.json", "newline": "a\nb", "tab": "a\tb", "c1": "a\x9bb", "nul": "a\0b",
    "long": "n" * 256, "long in bytes": "ä" * 128, "deep": "/".join(["d" * 200] * 20), "parent": "../x", "inside": "a/../b",
    "absolute": "/etc/x", "backslash": "..\\x", "empty": "", "dot": "./a", "slashes": "a//b", "end": "a/", "drive": "c:x",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_listed_name_that_cannot_be_one_here_is_65_and_named(
    host: Scripted, ask: Run, name: str, tmp_path: Path
) -> None:
    host.answer = listing(as_json([entry("config.json"), entry(name)]))
    refused = ask()
    assert refused.code == 65, refused.err
    assert ascii(name)[1:9].split("\\")[0] in refused.err
    assert not set(refused.err) & {"\x1b", "\x9b", "\0"}
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() or p.is_symlink()]


LISTED = {
    "twice": [entry("a"), entry("a")], "file and folder": [entry("a"), entry("a/b")], "no name": [entry("a") | {"path": 7}],
    "size": [entry("a", size=-1)], "huge": [entry("a", size=1 << 60)], "float": [entry("a", size=1.5)],
    "bool": [entry("a", size=True)], "digest": [entry("a", oid="../../x")], "no digest": [entry("a", oid=None)],
    "large": [entry("a", lfs={"oid": "x", "size": 3})], "large without": [entry("a", lfs={})],
}  # fmt: skip


@pytest.mark.parametrize("entries", LISTED.values(), ids=LISTED)
def test_a_listing_that_contradicts_itself_is_65(host: Scripted, ask: Run, entries: list[Any]) -> None:
    host.answer = listing(as_json(entries))
    refused = ask()
    assert refused.code == 65, refused.err
    assert "org/model" in refused.err


def test_too_many_files_are_65(monkeypatch: pytest.MonkeyPatch, host: Scripted, ask: Run) -> None:
    monkeypatch.setattr(api, "_MAX_FILES", 10)
    host.answer = listing(as_json([entry(f"f{i}") for i in range(11)]))
    refused = ask()
    assert refused.code == 65
    assert "more than 10 files" in refused.err


@pytest.mark.parametrize(("how", "what"), combined(
    ["text", "--json", "--debug"], ["down", "refused", "broken", "gated", "nothing", "fetched"],
))  # fmt: skip
def test_the_password_of_the_endpoint_is_told_to_nobody(
    hub: Hub, environment: dict[str, str], what: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    address = hub.url.replace("http://", "http://someone:pass%40word@")
    if what == "down":
        hub.__exit__()
        address = "http://someone:pass%40word@127.0.0.1:9"
    elif what == "refused":
        hub.api_fault = lambda path: Status(403)
    elif what == "broken":
        hub.api_fault = lambda path: Status(500)
    elif what == "gated":
        hub.api_fault = lambda path: Status(403, {"X-Error-Code": "GatedRepo"})
    name = "org/absent" if what == "nothing" else MODEL
    words = ["fetch", name] if what != "fetched" else ["convert", name, tmp_path / "x.gguf", "--type", "q8_0"]
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setitem(PATIENT.__dict__, "first_s", 0.001)
    code = main([str(w) for w in (*words, *([how] if how != "text" else []))])
    out, err = capfd.readouterr()
    assert (code == 0) == (what == "fetched"), err
    assert ("Traceback" in err) == (code != 0 and how == "--debug")
    kept = "".join(p.read_text(errors="replace") for p in tmp_path.rglob("*.json") if p.is_file())
    for text in (out, err, kept):
        assert "pass%40" not in text
        assert "pass@" not in text
        assert "someone" not in text.replace(str(tmp_path), "")
        assert "hf_secret" not in text


def test_the_password_of_the_endpoint_goes_to_it_and_to_no_other_host(hub: Hub, here: Run) -> None:
    line = Session("hf_token", "http://someone:pass%40word@127.0.0.1:9/under/", PATIENT)
    assert line.endpoint == "http://127.0.0.1:9/under"
    assert line._hub_headers()["authorization"] == "Basic c29tZW9uZTpwYXNzQHdvcmQ="
    assert line.is_hub("http://127.0.0.1:9/x")
    assert not line.is_hub("https://127.0.0.1:9/x")
    assert not line.is_hub("http://127.0.0.1:10/x")
    assert followed("http://a/x", "http://u:p@b/y") == "http://b/y"


@pytest.mark.parametrize("address", ["http://[", "http://host:port", "http://u:secret@host:99999999"])
def test_an_endpoint_that_is_no_address_is_64_and_not_told(run: Run, address: str) -> None:
    failed = run("fetch", MODEL, env={"HF_ENDPOINT": address})
    assert failed.code == 64, failed.err
    assert "HF_ENDPOINT" in failed.err
    assert "secret" not in failed.err


def test_what_the_hub_says_of_an_error_is_one_short_line(hub: Hub, here: Run) -> None:
    said = "\x1b]0;title\x07" + "no " * 20_000
    hub.api_fault = lambda path: Status(403, {"X-Error-Message": said})
    failed = here("fetch", MODEL)
    assert failed.code == 77
    assert len(failed.err) < 1000
    assert "\\x1b]0;title\\x07no no" in failed.err
    assert one_line("a\r\n \tb", 10) == "a b"


@pytest.mark.parametrize(
    "fields",
    [
        {"Content-Range": "bytes 0-9/" + "9" * 5000}, {"Content-Range": "bytes " + "9" * 5000 + "-1/3"},
        {"X-Linked-Size": "1\x1b[2J"}, {"X-Repo-Commit": "x" * 60_000}, {"Content-Encoding": "\x1b[2Jgzip"},
        {"Retry-After": "\xb2"}, {"Location": "http://["},
    ],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_hostile_header_fields_are_refused_in_few_plain_words(
    hub: Hub, here: Run, tmp_path: Path, fields: dict[str, str]
) -> None:
    def fault(ask: Ask) -> Headers | Status | None:
        if ask.path != WEIGHTS:
            return None
        return Status(503, fields) if "Retry-After" in fields else Headers(fields)

    hub.fault = fault
    failed = here("fetch", MODEL)
    assert failed.code in (65, 69), failed.err
    assert len(failed.err) < 2000
    assert "\x1b" not in failed.err


def test_pauses_that_no_number_can_be_are_none() -> None:
    assert asked_pause({"Retry-After": "\xb2"}) is None
    assert asked_pause({"Retry-After": "Mon, 01 Jan 99999 00:00:00 GMT"}) is None
    assert asked_pause({"Retry-After": "9" * 5000}) == float("inf")


def test_references_that_cannot_be_names_here_are_none() -> None:
    assert parse_reference("org/model@\udce4") is None
    assert parse_reference("org/model/a\x1bb.gguf") is None
    with pytest.raises(BadInput, match="longer than"):
        hub_file("org/model", COMMIT, "x" * 300, 3, "git-sha1", "a" * 40)


def test_a_record_of_another_model_in_the_place_of_a_listing_is_not_believed(hub: Hub, here: Run, cache: Path) -> None:
    assert here("fetch", MODEL).code == 0
    (path,) = cache.glob("*/listings/*.json")
    path.write_text(path.read_text().replace(MODEL, "org/other"))
    hub.forget()
    assert here("fetch", MODEL).code == 0
    assert any("/tree/" in r for r in hub.requests)


@pytest.mark.parametrize("token", ["hf_ä", "hf_\x1b[2J", "hf a\x7fb"])
def test_a_token_that_is_none_is_64_and_not_told(here: Run, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    failed = here("fetch", MODEL)
    assert failed.code == 64
    assert "HF_TOKEN" in failed.err
    assert token not in failed.err


def test_the_hub_is_asked_for_the_model_and_nothing_else(hub: Hub, run: Run) -> None:
    assert run("fetch", MODEL).code == 0
    assert all(MODEL in r or "/storage/" in r for r in hub.requests), hub.requests
