"""A hub, a storage host or a line that misbehaves: what is tried again, what is refused, and what is kept."""

from __future__ import annotations

import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_cases import MODEL, WEIGHTS, tensor_bytes
from running import Result, Run
from server import Ask, Cut, Fault, Headers, Hub, Stall, Status, Whole, Wrong

from streamconv.sources.hub.retries import PATIENT

Convert = Callable[..., Result]
#: each differs from one that stays in the number only, or in what the same field says
ALIKE = [
    Status(502), Status(503, {"Retry-After": "0"}), Status(504), Status(404), Headers({"Content-Range": ""}),
    Headers({"Content-Range": "bytes 0-65535/7"}),
]  # fmt: skip


@pytest.fixture
def convert(here: Run, tmp_path: Path) -> Convert:
    """Function that converts the model to ``x.gguf``."""
    return lambda *more: here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", *more)


@pytest.fixture
def right(tmp_path: Path, expected: bytes) -> Callable[[], bool]:
    """Function that tells whether ``x.gguf`` is what it should be."""
    return lambda: tensor_bytes(tmp_path / "x.gguf") == expected


def weights_size(hub: Hub) -> int:
    (commit,) = hub.models[MODEL].values()
    return commit[WEIGHTS].size


def first(n: int, fault: Fault) -> Callable[[Ask], Fault | None]:
    """``fault`` for the first ``n`` requests for weights at the storage host."""
    left = iter(range(n))

    def ask(ask: Ask) -> Fault | None:
        return fault if ask.path == WEIGHTS and not ask.at_hub and next(left, None) is not None else None

    return ask


@pytest.mark.parametrize(
    "fault",
    [
        Status(429, {"Retry-After": "0"}), Status(500), Status(403), Status(416), Cut(0), Cut(1000),
        Headers({"ETag": '"another"'}), Headers({"Content-Range": "bytes 0-9/10"}), Headers({"Content-Encoding": "gzip"}),
        *(pytest.param(fault, marks=pytest.mark.slow) for fault in ALIKE),
    ],
    ids=str,
)  # fmt: skip
def test_what_may_pass_is_tried_again(hub: Hub, convert: Convert, right: Callable[[], bool], fault: Fault) -> None:
    hub.fault = first(3, fault)
    done = convert()
    assert done.code == 0, done.err
    assert right()


def test_a_stalled_answer_is_given_up_and_continued(
    hub: Hub, convert: Convert, right: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PATIENT.__dict__, "read_s", 1.5)
    hub.fault = first(1, Stall(5000, 8))
    done = convert()
    assert done.code == 0, done.err
    assert right()
    assert hub.bytes_served(WEIGHTS) <= weights_size(hub) + (256 << 10)


def test_a_host_that_ignores_ranges_is_read_in_one_go(hub: Hub, convert: Convert, right: Callable[[], bool]) -> None:
    hub.fault = lambda ask: Whole() if ask.path == WEIGHTS else None
    done = convert()
    assert done.code == 0, done.err
    assert right()
    # The head was asked for first, and every connection may have begun once or twice before one took it all: not 49 ranges.
    assert hub.bytes_served(WEIGHTS) <= 10 * weights_size(hub)


def test_a_host_that_is_overloaded_for_good_ends_the_run_with_69_and_keeps_what_came(
    hub: Hub, convert: Convert, right: Callable[[], bool]
) -> None:
    hub.fault = lambda ask: Status(503) if ask.path == WEIGHTS and ask.start > 5_000_000 else None
    failed = convert()
    assert failed.code == 69, failed.err
    assert "503" in failed.err
    assert "again" in failed.err
    came = hub.bytes_served(WEIGHTS)
    hub.fault = lambda ask: None
    assert convert().code == 0
    assert right()
    assert came > 4_000_000
    assert hub.bytes_served(WEIGHTS) <= weights_size(hub) + 5 * (256 << 10)


def test_too_long_a_pause_is_not_waited_for(hub: Hub, convert: Convert) -> None:
    hub.fault = lambda ask: Status(429, {"Retry-After": "3600"}) if ask.path == WEIGHTS else None
    failed = convert()
    assert failed.code == 69
    assert "asks to wait 3600 s" in failed.err


def test_a_wrong_length_is_refused(hub: Hub, convert: Convert) -> None:
    size = weights_size(hub)
    hub.fault = lambda ask: (
        Headers({"Content-Range": f"bytes {ask.start}-{ask.stop - 1}/{size + 1}"}) if ask.path == WEIGHTS else None
    )
    failed = convert()
    assert failed.code == 65
    assert f"{size + 1} bytes" in failed.err
    assert str(size) in failed.err


def test_an_object_that_is_not_the_pinned_one_is_refused(hub: Hub, convert: Convert) -> None:
    hub.fault = lambda ask: Headers({"X-Linked-Etag": f'"{"0" * 64}"'}) if ask.path == WEIGHTS and ask.at_hub else None
    failed = convert()
    assert failed.code == 65
    assert "0" * 64 in failed.err
    assert next(iter(hub.models[MODEL].values()))[WEIGHTS].sha256 in failed.err


def test_a_range_that_came_wrong_once_is_found_and_only_it_is_fetched_again(
    hub: Hub, convert: Convert, right: Callable[[], bool]
) -> None:
    hub.fault = once_wrong(7_000_000)
    said = convert()
    assert said.code in (0, 65), said.err
    assert re.search(r"bytes \d+\.\.\d+ arrived with xxh3 [0-9a-f]{32} first, then with [0-9a-f]{32}", said.err)
    hub.forget()
    if said.code:  # what was made of the wrong bytes is made again
        again = convert()
        assert again.code == 0, again.err
    assert right()
    assert hub.bytes_served(WEIGHTS) in (0, 256 << 10), "only what was replaced, if the run ended before"


def once_wrong(at: int) -> Callable[[Ask], Fault | None]:
    left = iter([Wrong(at)])
    return lambda ask: next(left, None) if ask.path == WEIGHTS and ask.start <= at < ask.stop else None


def test_a_file_whose_digest_is_wrong_for_good_is_refused_with_range_and_digests(
    hub: Hub, convert: Convert, tmp_path: Path, cache: Path
) -> None:
    hub.fault = lambda ask: Wrong(7_000_000) if ask.path == WEIGHTS else None
    failed = convert()
    assert failed.code == 65
    listed = next(iter(hub.models[MODEL].values()))[WEIGHTS].sha256
    assert WEIGHTS in failed.err
    assert f"bytes 0..{weights_size(hub)}" in failed.err
    digests = set(re.findall(r"[0-9a-f]{64}", failed.err))
    assert listed in digests
    assert len(digests) == 2
    assert not (tmp_path / "x.gguf").exists()
    assert list(cache.rglob("*.part")), "what was received is kept"


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["bit", "index", "part gone", "index gone", "part short"])
def test_damage_to_what_was_fetched_is_found_and_only_that_is_fetched_again(
    hub: Hub, here: Run, convert: Convert, right: Callable[[], bool], cache: Path, damage: str
) -> None:
    hub.fault = lambda ask: Status(503) if ask.path == WEIGHTS and ask.start > 6_000_000 else None
    assert convert().code == 69
    hub.fault = lambda ask: None
    (part,), (index,) = cache.rglob("*.part"), cache.rglob("*.wal")
    if damage == "bit":
        flip(part, 3_000_000)
    elif damage == "index":
        flip(index, 2 * 4096 + 5 * 128 + 50)
    elif damage == "part short":
        with part.open("r+b") as f:
            f.truncate(100_000)
    else:
        (part if damage == "part gone" else index).unlink()
    hub.forget()
    done = convert("--force")
    assert done.code == 0, done.err
    assert right()
    lost = 256 << 10 if damage in ("bit", "index") else weights_size(hub)
    assert hub.bytes_served(WEIGHTS) <= weights_size(hub) - 5_000_000 + lost + (1 << 20)


def test_what_a_later_version_has_begun_to_fetch_is_left_as_it_is(
    hub: Hub, convert: Convert, right: Callable[[], bool], cache: Path
) -> None:
    hub.fault = lambda ask: Status(503) if ask.path == WEIGHTS and ask.start > 6_000_000 else None
    assert convert().code == 69
    (index,) = cache.rglob("*.wal")
    raw, page = bytearray(index.read_bytes()), bytearray(4092)
    struct.pack_into("<4sI", page, 0, b"SCVJ", 2)
    raw[:4096] = page + struct.pack("<I", zlib.crc32(page))
    index.write_bytes(raw)
    before = {p: p.stat().st_mtime_ns for p in index.parent.iterdir()}
    refused = convert()
    assert refused.code == 78
    assert f"{index} was written by another version of streamconv: format 2, this version reads 1" in refused.err
    assert {p: p.stat().st_mtime_ns for p in index.parent.iterdir()} == before
    index.unlink()  # as the message says
    hub.fault = lambda ask: None
    assert convert().code == 0
    assert right()


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 0x10]))


def test_what_the_api_may_answer_next_time_is_tried_again(hub: Hub, convert: Convert) -> None:
    answers: Iterator[Status] = iter([Status(503), Status(429, {"Retry-After": "0"}), Status(500)])
    hub.api_fault = lambda path: next(answers, None)
    assert convert().code == 0


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("org/nothing", 66, "is not on http"),
        ("org/tiny-gemma3@nowhere", 66, "no such revision"),
        ("org/tiny-gemma3/absent.gguf", 66, "no file absent.gguf"),
    ],
)
def test_what_is_not_there_is_66(here: Run, tmp_path: Path, name: str, code: int, words: str) -> None:
    failed = here("convert", name, tmp_path / "x.gguf")
    assert failed.code == code, failed.err
    assert words in failed.err


def test_a_hub_that_cannot_be_reached_is_69(hub: Hub, here: Run, tmp_path: Path) -> None:
    hub.__exit__()
    failed = here("convert", MODEL, tmp_path / "x.gguf")
    assert failed.code == 69
    assert "cannot be reached" in failed.err


def test_a_private_model_needs_the_token_which_the_storage_host_never_sees(
    hub: Hub, here: Run, convert: Convert, right: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.private_token = "hf_secret"
    refused = convert()
    assert refused.code in (66, 77), refused.err
    assert "HF_TOKEN" in refused.err
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    done = convert()
    assert done.code == 0, done.err
    assert right()
    assert not hub.tokens


def test_hostile_names_in_a_listing_never_leave_the_cache(
    hub: Hub, here: Run, tmp_path: Path, tiny_model: Path
) -> None:
    bad = shutil.copytree(tiny_model, tmp_path / "bad")
    hub.add("org/bad", bad)
    (files,) = hub.models["org/bad"].values()
    files["../../../escape.json"] = files["config.json"]
    refused = here("fetch", "org/bad")
    assert refused.code == 65
    assert "outside" in refused.err
    assert not list(tmp_path.rglob("escape.json"))
