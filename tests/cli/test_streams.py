"""Standard streams that nobody reads, or whose disk is full, cost what they would have said and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "streamconv"]
#: streams are buffered, as they are for users, whatever the tests run in
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def call(*args: object, stdout: int, stderr: int = subprocess.DEVNULL) -> int:
    return subprocess.run(
        [*COMMAND, *map(str, args)], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=ENVIRONMENT, check=False,
        timeout=120,
    ).returncode  # fmt: skip


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe whose reader has gone."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.fixture
def full() -> Iterator[int]:
    """A device on which there is never any room."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    fd = os.open("/dev/full", os.O_WRONLY)
    yield fd
    os.close(fd)


def test_a_conversion_whose_events_nobody_reads_is_finished(small: Path, tmp_path: Path, unread: int) -> None:
    out = tmp_path / "x.gguf"
    assert call("convert", small, out, "--type", "f16", "--json", stdout=unread, stderr=unread) == 0
    assert out.read_bytes()[:4] == b"GGUF"


def test_a_conversion_whose_log_is_full_is_finished(small: Path, tmp_path: Path, full: int) -> None:
    out = tmp_path / "x.gguf"
    assert call("convert", small, out, "--type", "f16", stdout=subprocess.DEVNULL, stderr=full) == 0
    assert out.exists()


def test_a_result_that_cannot_be_printed_ends_with_74(small: Path, tmp_path: Path, full: int) -> None:
    out = tmp_path / "x.gguf"
    assert call("convert", small, out, "--type", "f16", "--json", stdout=full, stderr=full) == 74
    assert out.exists(), "it was made all the same"
    assert call("plan", small, tmp_path / "y.gguf", stdout=full) == 74


@pytest.mark.parametrize("command", ["status", "inspect", "check"])
def test_no_command_succeeds_whose_result_is_lost(
    here: Any, small: Path, tmp_path: Path, full: int, command: str
) -> None:
    out = tmp_path / "x.gguf"
    assert here("convert", small, out, "--type", "f16").code == 0
    assert call(command, out, stdout=full) == 74


def test_a_result_over_the_limit_of_the_shell_ends_with_74(small: Path, tmp_path: Path) -> None:
    command = f"ulimit -f 1; exec {' '.join(COMMAND)} plan {small} {tmp_path / 'x.gguf'} --json > {tmp_path / 'log'}"
    assert subprocess.run(["sh", "-c", command], env=ENVIRONMENT, capture_output=True, check=False).returncode == 74


def test_a_listing_may_be_cut_by_its_reader(small: Path, tmp_path: Path, unread: int) -> None:
    assert call("plan", small, tmp_path / "x.gguf", "--json", stdout=unread) == 0


def test_an_error_keeps_its_code_when_nobody_hears_it(tmp_path: Path, unread: int) -> None:
    assert call("convert", tmp_path / "none", tmp_path / "x.gguf", "--json", stdout=unread, stderr=unread) == 66
