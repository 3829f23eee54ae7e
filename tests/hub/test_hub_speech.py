"""Qwen 3 TTS, what makes sound of whose codes is a model of its own in a folder: from the hub, and after an interruption."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hub_cases import tensor_bytes
from running import Run
from server import Hub

import streamconv
from streamconv.errors import StreamconvError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
import toys

_SPEECH = "speech_tokenizer"


def speaking(folder: Path) -> Path:
    """A toy of Qwen 3 TTS as it is published."""
    return toys.written(folder, toys.stored(toys.PROJECTORS)["qwen3tts"])


def test_what_makes_sound_is_fetched_with_its_model(hub: Hub, here: Run, tmp_path: Path) -> None:
    source = speaking(tmp_path / "store")
    hub.add("org/tts", source)
    for name, given in (("hub", "org/tts"), ("disk", str(source))):
        done = here("convert", given, tmp_path / f"{name}.gguf", "--mmproj", "--type", "f32")
        assert done.code == 0, done.err
    assert hub.bytes_served(f"{_SPEECH}/model.safetensors") > 0
    assert tensor_bytes(tmp_path / "hub.gguf") == tensor_bytes(tmp_path / "disk.gguf")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["hub", "disk"])
def test_a_job_that_was_interrupted_goes_on_with_what_makes_sound(
    hub: Hub, here: Run, tmp_path: Path, where: str
) -> None:
    source = speaking(tmp_path / "store")
    hub.add("org/tts", source)
    given = "org/tts" if where == "hub" else str(source)
    whole, out = tmp_path / "whole.gguf", tmp_path / "x.gguf"
    assert here("convert", given, whole, "--mmproj", "--type", "f32").code == 0
    stopped = here("convert", given, out, "--mmproj", "--type", "f32", "--stop-after", "0.001s", "--threads", "1")
    assert stopped.code == 75, stopped.err
    hub.forget()
    assert here("convert", given, out, "--mmproj", "--type", "f32").code == 0
    assert tensor_bytes(out) == tensor_bytes(whole)


@pytest.mark.slow
def test_what_makes_sound_is_an_input_like_others(tmp_path: Path) -> None:
    source, out = speaking(tmp_path / "store"), tmp_path / "x.gguf"
    streamconv.convert(source, out, mmproj=True, type="f32", threads=1)
    weights = source / _SPEECH / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(StreamconvError):
        streamconv.convert(source, out, mmproj=True, type="f32", threads=1)
