"""Several jobs at once, and fetching beside converting: who waits for whom, and what is read where."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_cases import MODEL, WEIGHTS, tensor_bytes
from running import Run
from server import Hub, Slow

from streamconv.engine.transfer.part import Cut, Part
from streamconv.sources.hub.files import PartialFile

Start = Callable[..., subprocess.Popen[str]]


def assert_each_byte_once(hub: Hub) -> None:
    (files,) = hub.models[MODEL].values()
    at = 0
    for start, stop in sorted(hub.served[WEIGHTS]):
        assert start == at, f"byte {min(start, at)} of the weights was {'sent again' if start < at else 'left out'}"
        at = stop
    assert at == files[WEIGHTS].size


@pytest.mark.parametrize("jobs", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_of_jobs_for_one_target_one_publishes_and_the_others_say_who_is_at_it(
    hub: Hub, start: Start, tmp_path: Path, expected: bytes, jobs: int
) -> None:
    hub.fault = lambda ask: Slow(4e6) if ask.path == WEIGHTS else None
    racing = [start("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--json") for _ in range(jobs)]
    ends = [(p.communicate(timeout=300), p) for p in racing]
    finals = [(json.loads(out.splitlines()[-1]), err, p.returncode) for (out, err), p in ends]
    winners = [
        p.pid for (_, p), (final, _, code) in zip(ends, finals, strict=True) if not code and not final["already"]
    ]
    assert len(winners) == 1
    for final, err, code in finals:
        assert code in (0, 75), err
        assert code == 0 or final["status"] == "Locked"
        assert code == 0 or re.search(r"pid \d+ on ", err), err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert os.listdir(tmp_path / "cache") == ["org--tiny-gemma3"]
    assert_each_byte_once(hub)


@pytest.mark.slow
def test_jobs_for_two_targets_of_one_model_fetch_it_once(
    hub: Hub, start: Start, run: Run, tmp_path: Path, expected: bytes
) -> None:
    hub.fault = lambda ask: Slow(6e6) if ask.path == WEIGHTS else None
    commands = [("convert", MODEL, tmp_path / f"{k}.gguf", "--type", "q8_0") for k in range(2)]
    ends = [(p.communicate(timeout=120)[1], p.returncode) for p in [start(*c) for c in commands]]
    assert 0 in [code for _, code in ends], ends
    for err, code in ends:
        assert code in (0, 75), err
        assert code == 0 or "is fetching into" in err
    hub.fault = lambda ask: None
    for command in commands:
        assert run(*command).code == 0
        assert tensor_bytes(command[2]) == expected
    assert_each_byte_once(hub)


def test_what_is_converted_stays_cached_until_it_has_gone_into_the_digest(
    hub: Hub, here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the digest is made of what the disk has to be asked for again."""
    summed: set[int] = set()
    converted = threading.Event()
    early: list[tuple[int, int]] = []
    real_read, real_release, real_advise = Part.read, PartialFile.release, os.posix_fadvise
    cuts: dict[str, Cut] = {}

    def read(self: Part, index: int) -> Iterator[bytes]:
        if self.remote.path == WEIGHTS:
            cuts["weights"] = self.cut
            assert index < 2 or converted.wait(60)  # conversion gets ahead
        yield from real_read(self, index)
        if self.remote.path == WEIGHTS:
            summed.add(index)  # not later: once it counts as summed, it may be released at any moment

    def release(self: PartialFile, offset: int, length: int) -> None:
        real_release(self, offset, length)
        if length > 256 << 10:
            converted.set()

    def advise(fd: int, offset: int, length: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED and "weights" in cuts:
            early.extend((offset, i) for i in cuts["weights"].touched(offset, length) if i not in summed)
        real_advise(fd, offset, length, advice)

    monkeypatch.setattr(Part, "read", read)
    monkeypatch.setattr(PartialFile, "release", release)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr("streamconv.engine.files.drop_cache", lambda *args: None)  # of the output
    assert here("convert", MODEL, tmp_path / "x.gguf", "--type", "f16", "--chunk-size", "1MiB").code == 0
    assert summed
    assert early == []


def test_connections_ask_for_less_towards_the_end(hub: Hub, here: Run, tmp_path: Path) -> None:
    """Lest the last one goes on alone with a long span."""
    hub.fault = lambda ask: Slow(8e6) if ask.path == WEIGHTS else None
    assert here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0").code == 0
    spans = sorted(hub.served[WEIGHTS])
    assert max(b - a for a, b in spans) == 1 << 20, "four ranges together while there are many"
    assert all(b - a <= 512 << 10 for a, b in spans[-4:])
    assert_each_byte_once(hub)
