"""Several calls in one process: what one has looked at, another may fetch."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_cases import MODEL, WEIGHTS, tensor_bytes
from server import Hub

import streamconv


@pytest.mark.parametrize("first", ["plan", "open", "open and read", "open twice"])
def test_one_process_may_look_at_a_model_and_convert_it_then(
    hub: Hub, here: object, tmp_path: Path, expected: bytes, tiny_model: Path, first: str
) -> None:
    rows = {}
    if first == "plan":
        streamconv.plan(MODEL, tmp_path / "x.gguf", type="q8_0")
    else:
        rows = dict(streamconv.open(MODEL))
        name = max(rows, key=lambda n: rows[n].shape[0])
        if first == "open and read":
            rows[name].read(0, 1)
        if first == "open twice":
            streamconv.open(MODEL)[name].read(5, 6)
    streamconv.convert(MODEL, tmp_path / "x.gguf", type="q8_0")
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    if rows:  # they find what the conversion has brought
        own = streamconv.open(tiny_model)[name]
        assert (rows[name].read(7, 9) == own.read(7, 9)).all()
    assert hub.bytes_served(WEIGHTS) == (tiny_model / WEIGHTS).stat().st_size, "each byte came once"
