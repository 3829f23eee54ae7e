"""Models of the hub without a home, a terminal or permission to write the cache."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_cases import MODEL, WEIGHTS, tensor_bytes
from running import Run
from server import Ask, Fault, Hub, Slow

from streamconv.engine import files

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def homeless(tmp_path: Path) -> dict[str, str]:
    """A home that cannot be created, and no other place named; empty counts as unset."""
    (tmp_path / "a-file").write_text("")
    home = str(tmp_path / "a-file" / "home")
    return {"HOME": home, "STREAMCONV_CACHE": "", "XDG_CACHE_HOME": "", "HF_HOME": f"{home}/hf"}


@pytest.mark.slow
def test_a_home_that_cannot_be_written_keeps_what_is_fetched_beside_the_output(
    hub: Hub, run: Run, tmp_path: Path, homeless: dict[str, str], expected: bytes
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    first = run("convert", MODEL, out / "x.gguf", "--type", "q8_0", env=homeless)
    assert first.code == 0, first.err
    assert "is not writable" in first.err
    assert tensor_bytes(out / "x.gguf") == expected
    assert (out / ".streamconv-models").is_dir()
    hub.forget()
    assert "nothing to do" in run("convert", MODEL, out / "x.gguf", "--type", "q8_0", env=homeless).out
    assert hub.requests == []


def test_fetch_lists_its_errors_as_json_for_pipelines(run: Run) -> None:
    failed = run("fetch", "org/nothing", "--json")
    assert failed.code == 66
    record = json.loads(failed.out.splitlines()[-1])
    assert record["exit_code"] == 66
    assert record["resumable"] is False


@pytest.mark.parametrize("command", ["convert", pytest.param("fetch", marks=pytest.mark.slow)])
@pytest.mark.parametrize("signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_a_stalled_download_at_once_and_it_goes_on_later(
    hub: Hub, start: Start, run: Run, tmp_path: Path, command: str, signum: signal.Signals
) -> None:
    words = [command, MODEL, *([tmp_path / "x.gguf", "--type", "f16"] if command == "convert" else [])]
    stalled = threading.Event()

    def stall(ask: Ask) -> Fault | None:
        if ask.at_hub or ask.path != WEIGHTS or ask.stop - ask.start <= 300_000:
            return None
        stalled.set()
        return Slow(1e5)

    hub.fault = stall
    process = start(*words)
    assert stalled.wait(60)
    time.sleep(0.2)
    process.send_signal(signum)
    began = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signum, err
    assert time.monotonic() - began < 5
    hub.fault = lambda ask: None
    done = run(*words)
    assert done.code == 0, done.err


def test_stop_after_ends_a_slow_download_in_order(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.fault = lambda ask: Slow(1e5) if ask.path == WEIGHTS and ask.stop - ask.start > 300_000 else None
    began = time.monotonic()
    stopped = run("convert", MODEL, tmp_path / "x.gguf", "--type", "f16", "--stop-after", "1s")
    assert stopped.code == 75, stopped.err
    assert time.monotonic() - began < 15
    assert run("fetch", MODEL, "--stop-after", "1s").code == 75


def test_nothing_goes_to_a_proxy_that_is_not_for_this_host(hub: Hub, run: Run) -> None:
    proxied = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    assert run("fetch", MODEL, env={**proxied, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}).code == 0


def test_what_is_fetched_under_umask_077_is_private(run: Run, cache: Path) -> None:
    old = os.umask(0o077)
    try:
        assert run("fetch", MODEL).code == 0
    finally:
        os.umask(old)
    for path in [cache, *cache.rglob("*")]:
        assert path.is_symlink() or not path.stat().st_mode & 0o077, path


def test_a_disk_that_holds_the_output_but_not_the_inputs_too_is_refused_with_what_is_needed(
    here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda folder: (64 << 20) + 10_000_000)
    refused = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    assert refused.code == 74
    assert re.search(
        r"bytes are needed \([\d,]+ for the download, [\d,]+ for the output, 67,108,864 in reserve\)", refused.err
    )
    assert "77,108,864 are free" in refused.err
