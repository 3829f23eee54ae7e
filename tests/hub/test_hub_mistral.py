"""Models of the hub in Mistral's own layout: which files come, with the option and without."""

from __future__ import annotations

import shutil
from pathlib import Path

from hub_cases import tensor_bytes
from own_layout import own_layout
from running import Run
from server import Hub


def served(hub: Hub) -> set[str]:
    return {path for path in hub.served if hub.bytes_served(path)}


def test_of_two_layouts_the_option_chooses_what_comes(hub: Hub, here: Run, tmp_path: Path, tiny_model: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "both")
    for file in own_layout(tmp_path / "own").iterdir():
        shutil.copy(file, folder)
    hub.add("org/both", folder)
    done = here("convert", "org/both", tmp_path / "x.gguf", "--type", "f16", "--mistral-format")
    assert done.code == 0, done.err
    assert "consolidated.safetensors" in served(hub)
    assert "model.safetensors" not in served(hub)
    alone = here("convert", tmp_path / "own", tmp_path / "y.gguf", "--type", "f16", "--mistral-format")
    assert alone.code == 0, alone.err
    assert tensor_bytes(tmp_path / "x.gguf") == tensor_bytes(tmp_path / "y.gguf")
    hub.served.clear()
    assert here("fetch", "org/both").code == 0
    assert "model.safetensors" in served(hub)
    assert "consolidated.safetensors" not in served(hub)


def test_fetch_takes_that_layout_for_later_and_the_message_without_the_option_names_it(
    hub: Hub, here: Run, tmp_path: Path
) -> None:
    hub.add("org/own", own_layout(tmp_path / "own"))
    refused = here("convert", "org/own", tmp_path / "x.gguf", "--type", "f16")
    assert refused.code == 66
    assert "Convert it to GGUF with --mistral-format" in refused.err
    assert here("fetch", "org/own", "--mistral-format").code == 0
    offline = here("convert", "org/own", tmp_path / "x.gguf", "--type", "f16", "--mistral-format", "--offline")
    assert offline.code == 0, offline.err
