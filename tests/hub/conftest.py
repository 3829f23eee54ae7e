"""A hub on this machine, and commands that know no other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "sources"))  # builders of torch files

from hub_cases import MODEL, tensor_bytes
from running import Result, Run, in_this_process
from server import Hub, stored_file

import streamconv
from streamconv.conversion import hub_models
from streamconv.engine.transfer import Settings
from streamconv.sources.hub import session
from streamconv.sources.hub.retries import PATIENT

#: digests of the bundled model
_bundled = cache(stored_file)
#: no hub here speaks TLS, and reading all certificates takes 50 ms
_trust = cache(session._trust)


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[Hub]:
    """A hub that has the bundled model as ``MODEL``."""
    with Hub() as hub:
        hub.add(MODEL, tiny_model, described=_bundled)
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where fetched models are kept."""
    return tmp_path / "cache"


@pytest.fixture
def environment(hub: Hub, cache: Path, tmp_path: Path) -> dict[str, str]:
    """What a process needs to use ``hub`` and nothing of ours."""
    return {
        "HF_ENDPOINT": hub.url, "STREAMCONV_CACHE": str(cache), "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "",
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip


@pytest.fixture
def start(environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """Function that starts ``python -m streamconv ARGS`` against the hub."""

    def call(*args: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "streamconv", *map(str, args)], env=os.environ | environment | (env or {}),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return call


@pytest.fixture
def run(start: Callable[..., subprocess.Popen[str]]) -> Run:
    """Function that runs a command to its end."""

    def call(*args: object, env: dict[str, str] | None = None) -> Result:
        process = start(*args, env=env)
        out, err = process.communicate(timeout=120)
        return Result(process.returncode, out, err)

    return call


@pytest.fixture
def here(
    hub: Hub,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Function that runs a command in this process: small ranges, short pauses."""
    from huggingface_hub import constants

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for key, seconds in {"first_s": 0.001, "longest_s": 0.01, "read_s": 3.0, "retry_after_s": 5.0}.items():
        monkeypatch.setitem(PATIENT.__dict__, key, seconds)
    monkeypatch.setattr(session, "_trust", _trust)
    small = Settings(head_bytes=64 << 10, range_bytes=256 << 10, span_bytes=1 << 20)
    monkeypatch.setattr(hub_models, "KEEPING", small)
    evicting = Settings(head_bytes=64 << 10, range_bytes=256 << 10, span_bytes=512 << 10, ahead_bytes=1 << 20)
    monkeypatch.setattr(hub_models, "EVICTING", evicting)

    return in_this_process(capfd)


@pytest.fixture(scope="session")
def expected(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The tensors of the bundled model as Q8_0, made of the folder."""
    out = tmp_path_factory.mktemp("expected") / "x.gguf"
    streamconv.convert(tiny_model, out, type="q8_0")
    return tensor_bytes(out)
