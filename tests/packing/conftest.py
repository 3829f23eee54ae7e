"""A checkpoint of two small shards, and frames so small that it has many."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_models import write_safetensors

from streamconv.cli import main
from streamconv.packing import frames, making

Pack = Callable[..., int]


def bf16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of 4 KiB, a commit after every other chunk or so."""
    monkeypatch.setattr(frames, "FRAME_BYTES", 4096)
    monkeypatch.setattr(frames, "_LEAST_BYTES", 1024)
    monkeypatch.setattr(making, "_WINDOW_BYTES", 20_000)


@pytest.fixture
def model(tmp_path: Path, small_frames: None) -> Path:
    """Two shards of every kind of bytes, their index and files beside them, one of which is empty."""
    folder, rng = tmp_path / "model", np.random.default_rng(0)
    folder.mkdir()
    first = {
        "a.bf16": ("BF16", bf16(rng.standard_normal((90, 100)) * 0.02)),
        "a.f32": ("F32", rng.standard_normal((10, 33)).astype(np.float32)),
        "a.odd": ("BF16", bf16(rng.standard_normal(1001))),
    }
    second = {
        "b.f16": ("F16", (rng.standard_normal((80, 60)) * 0.02).astype(np.float16)),
        "b.i64": ("I64", np.arange(5)),
        "b.none": ("BF16", np.zeros((0, 4), np.uint16)),
        "b.zeros": ("BF16", np.zeros((50, 100), np.uint16)),
    }
    names = {}
    for number, tensors in enumerate((first, second), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        write_safetensors(folder / file, tensors)
        names |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (folder / "config.json").write_text('{"architectures": ["X"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE").write_bytes(b"")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    return folder


@pytest.fixture
def command() -> Pack:
    """Function that runs a command in this process, silently."""
    return lambda *args: main([*map(str, args), "--quiet"])


def files_of(folder: Path) -> dict[str, bytes]:
    """What is in a folder, records of ours aside."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.endswith(".streamconv")
    }
