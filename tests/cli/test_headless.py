"""Without a person, a terminal or a home: cron, systemd, containers, pipelines."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import streamconv

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "streamconv"]


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """What cron gives a process, and a home that nobody can write."""
    home = tmp_path / "a-file"
    home.write_text("no folder can be made below this")
    return {"PATH": os.environ["PATH"], "HOME": str(home / "home"), "LANG": "C", "LC_ALL": "C"}


def call(
    *args: object, env: dict[str, str], setup: Callable[[], object] | None = None, **more: object
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, args)], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=120, preexec_fn=setup, cwd=ROOT, **more,  # type: ignore[call-overload]
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_home_that_cannot_be_written_and_a_plain_locale(small: Path, tmp_path: Path, bare: dict[str, str]) -> None:
    name = os.fsdecode("größe-模型.gguf".encode())
    out = tmp_path / name
    done = call("convert", small, out, "--type", "f16", env=bare)
    assert done.returncode == 0, done.stderr
    assert out.exists()
    assert "\x1b" not in done.stderr + done.stdout, "no terminal, no control sequences"
    again = call("convert", small, out, "--type", "f16", env=bare)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout


def test_no_home_at_all(small: Path, tmp_path: Path, bare: dict[str, str]) -> None:
    del bare["HOME"]
    assert call("convert", small, tmp_path / "x.gguf", "--type", "f16", env=bare).returncode == 0


def test_closed_standard_streams(small: Path, tmp_path: Path) -> None:
    def close() -> None:
        for fd in (0, 1, 2):
            os.close(fd)

    done = subprocess.run(
        [*COMMAND, "convert", str(small), str(tmp_path / "x.gguf"), "--type", "f16"], preexec_fn=close, check=False, cwd=ROOT
    )  # fmt: skip
    assert done.returncode == 0
    assert (tmp_path / "x.gguf").read_bytes()[:4] == b"GGUF"


def test_umask_077_keeps_the_output_private(small: Path, tmp_path: Path) -> None:
    done = call(
        "convert", small, tmp_path / "x.gguf", "--type", "f16", env=dict(os.environ), setup=lambda: os.umask(0o077)
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((tmp_path / "x.gguf").stat().st_mode) == 0o600


def test_no_module_asks_a_question() -> None:
    for path in Path(streamconv.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert "input(" not in text.replace("_input(", ""), f"{path} asks"
        assert "getpass" not in text, f"{path} asks"


def test_nice_runs_at_the_lowest_priority_and_makes_the_same(small: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "convert", str(small), str(tmp_path / "x.gguf"), "--type", "f16", "--nice"], cwd=ROOT
    )  # fmt: skip
    seen = 0
    while process.poll() is None:
        try:
            seen = max(seen, os.getpriority(os.PRIO_PROCESS, process.pid))
        except ProcessLookupError:
            break
        time.sleep(0.005)
    assert process.wait() == 0
    assert seen == 19
    streamconv.convert(small, tmp_path / "y.gguf", type="f16")
    assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "y.gguf").read_bytes()


@pytest.mark.parametrize("signum", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_service_that_is_stopped_goes_on_later(tiny_model: Path, tmp_path: Path, signum: signal.Signals) -> None:
    command = [*COMMAND, "convert", str(tiny_model), str(tmp_path / "x.gguf"), "--type", "q8_0", "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    job = tmp_path / "x.gguf.streamconv" / "index.wal"
    while not job.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signum)
    began = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert process.returncode in (0, -signum), said
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    "signum", [signal.SIGHUP, *(pytest.param(s, marks=pytest.mark.slow) for s in (signal.SIGINT, signal.SIGTERM))]
)
def test_a_signal_that_the_caller_ignores_stops_nothing(
    tiny_model: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    command = [*COMMAND, "convert", str(tiny_model), str(tmp_path / "x.gguf"), "--type", "q8_0", "--threads", "1"]
    process = subprocess.Popen(command, cwd=ROOT, preexec_fn=lambda: signal.signal(signum, signal.SIG_IGN))
    while process.poll() is None:  # at every moment of its life
        process.send_signal(signum)
        time.sleep(0.01)
    assert process.returncode == 0


_IN_A_CALLBACK = """
import ctypes, os, signal, sys, time
from streamconv import cli, commands

@ctypes.CFUNCTYPE(None)
def compiled():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)

def inspect(_options):
    compiled()
    return 0

commands.inspect = inspect
sys.exit(cli.main(["inspect", "x"]))
"""


def test_an_interrupt_while_a_compiler_calls_back_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", _IN_A_CALLBACK], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


class TestUpdate:
    """--update: up to date costs nothing, anything else is made again."""

    @pytest.fixture
    def source(self, small: Path, tmp_path: Path) -> Path:
        copy = shutil.copytree(small, tmp_path / "model")
        for path in copy.iterdir():
            path.chmod(0o644)
            os.utime(path, (1e9, 1e9))
        return copy

    def test_nothing_changed(self, source: Path, tmp_path: Path) -> None:
        streamconv.convert(source, tmp_path / "x.gguf", type="f16", update=True)
        before = (tmp_path / "x.gguf").stat()
        streamconv.convert(source, tmp_path / "x.gguf", type="f16", update=True)
        after = (tmp_path / "x.gguf").stat()  # its access time may differ: it was looked at
        assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)

    def test_another_type(self, source: Path, tmp_path: Path) -> None:
        streamconv.convert(source, tmp_path / "x.gguf", type="f16", update=True)
        streamconv.convert(source, tmp_path / "x.gguf", type="q8_0", update=True)
        streamconv.convert(source, tmp_path / "y.gguf", type="q8_0")
        assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "y.gguf").read_bytes()

    @pytest.mark.parametrize("written", [False, True])
    def test_an_input_was_touched_or_written_again(self, source: Path, tmp_path: Path, written: bool) -> None:
        streamconv.convert(source, tmp_path / "x.gguf", type="f16", update=True)
        before, weights = (tmp_path / "x.gguf").stat(), source / "model.safetensors"
        if written:
            data = bytearray(weights.read_bytes())
            data[len(data) // 3] ^= 1
            weights.write_bytes(data)
        os.utime(weights)
        streamconv.convert(source, tmp_path / "x.gguf", type="f16", update=True)
        assert ((tmp_path / "x.gguf").stat().st_ino != before.st_ino) == written

    def test_an_unfinished_job_of_other_options_makes_room(self, unfinished: Path, tiny_model: Path) -> None:
        streamconv.convert(tiny_model, unfinished, type="f16", update=True)
        assert unfinished.exists()


def test_make_convert_is_idempotent_and_follows_its_options(small: Path, tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("no make")
    model, venv = shutil.copytree(small, tmp_path / "model"), tmp_path / "venv"
    for path in model.iterdir():
        os.utime(path, (1e9, 1e9))
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "streamconv").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m streamconv "$@"\n')
    (venv / "bin" / "streamconv").chmod(0o755)
    (venv / ".installed").touch()

    def make(*settings: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "-C", str(ROOT), "convert", f"VENV={venv}", f"MODEL={model}", f"OUT={tmp_path / 'x.gguf'}"]
        done = subprocess.run(
            [*command, *settings], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr
        return done

    make("TYPE=q8_0")
    first = (tmp_path / "x.gguf").stat()
    assert "nothing to do" in make("TYPE=q8_0").stdout
    assert (tmp_path / "x.gguf").stat() == first
    make("TYPE=f16")
    assert (tmp_path / "x.gguf").stat().st_size > first.st_size


def test_the_systemd_units_are_valid(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("no systemd-analyze")
    for unit in sorted((ROOT / "docs" / "systemd").iterdir()):  # the program must be there for systemd to be content
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/streamconv/bin/streamconv", "/bin/true"))
    done = subprocess.run(
        [verify, "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))], capture_output=True, text=True, check=False
    )  # fmt: skip
    if "Failed to initialize" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "streamconv" in line], done.stderr
