"""Models of the hub with workers: everything is here before they begin, and they ask nobody."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from hub_cases import MODEL, tensor_bytes
from running import Run
from server import Hub

from streamconv.cluster import where


def test_workers_do_not_begin_before_all_is_fetched(here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, "find_spec", lambda name: object())
    result = here("convert", MODEL, tmp_path / "x.gguf", "--type", "Q8_0", "--cluster", "local:2")
    assert result.code == 64
    assert f"streamconv fetch {MODEL}" in result.err
    assert not (tmp_path / "x.gguf.streamconv").exists()


@pytest.mark.slow
def test_workers_read_what_was_fetched_and_ask_nobody(run: Run, hub: Hub, tmp_path: Path, expected: bytes) -> None:
    if find_spec("distributed") is None:
        pytest.skip("Dask is not installed (pip install streamconv[dask])")
    assert run("fetch", MODEL).code == 0
    asked = len(hub.requests)
    result = run("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--cluster", "local:2")
    assert result.code == 0, result.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert len(hub.requests) == asked
