"""The text model's section of config.json is the same to every stage, whatever its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_models import changed

import streamconv
from streamconv import inspect
from streamconv.sources import open_checkpoint
from streamconv.sources.hf_config import TEXT_SECTIONS, flattened, text_section, ties_by_default

NAMES = pytest.mark.parametrize("name", TEXT_SECTIONS)


def within(model: Path, folder: Path, name: str) -> Path:
    """A copy of ``model`` as a wrapper saves it: all keys in the section ``name``, of another class at the root.

    Sections other than the first two belong to models whose own class decides, as a part of theirs may differ from it.
    """

    def wrap(config: dict[str, Any]) -> None:
        inner = dict(config)
        config.clear()
        outer = ["OuterChatModel"] if name in TEXT_SECTIONS[:2] else inner["architectures"]
        config |= {"architectures": outer, "model_type": "outer", name: inner}

    return changed(model, folder, config=wrap)


@NAMES
def test_a_text_model_in_a_section_converts_to_the_same_bytes(data: Path, tmp_path: Path, name: str) -> None:
    model = data / "checkpoints" / "mistral-spm" / "hf"
    source = within(model, tmp_path / "wrapped" / "model", name)
    plain = changed(model, tmp_path / "plain" / "model", config=lambda config: None)
    streamconv.convert(plain, tmp_path / "plain.gguf", type="f16", threads=1)
    streamconv.convert(source, tmp_path / "wrapped.gguf", type="f16", threads=1)
    assert (
        open_checkpoint(tmp_path / "wrapped.gguf").tensors.keys()
        == open_checkpoint(tmp_path / "plain.gguf").tensors.keys()
    )
    before, after = ((tmp_path / f"{each}.gguf").read_bytes() for each in ("plain", "wrapped"))
    assert before[-100_000:] == after[-100_000:]
    keys = [dict(open_checkpoint(tmp_path / f"{each}.gguf").metadata.values) for each in ("plain", "wrapped")]
    assert {**keys[0], "streamconv.job": None} == {**keys[1], "streamconv.job": None}


@NAMES
def test_the_section_is_shown_by_inspect(data: Path, tmp_path: Path, name: str) -> None:
    source = within(data / "checkpoints" / "mistral-spm" / "hf", tmp_path / "model", name)
    text = inspect.render(inspect.describe(open_checkpoint(source)))
    assert "  model_type: outer\n  hidden_size: 64\n" in text


def test_of_two_sections_the_first_is_the_text_model_and_both_lie_over_the_root() -> None:
    config = {"a": 0, "b": 0, "c": 0, "language_config": {"a": 2, "b": 2}, "text_config": {"a": 1}, "llm_config": None}
    assert text_section(config) == {"a": 1}
    assert {key: flattened(config)[key] for key in "abc"} == {"a": 2, "b": 2, "c": 0}
    assert text_section({"a": 3}) == {"a": 3}


def test_the_text_model_of_a_model_that_also_speaks_is_in_its_thinker() -> None:
    config = {"a": 0, "text_config": {"a": 1}, "thinker_config": {"text_config": {"a": 2}}, "talker_config": {"a": 3}}
    assert text_section(config) == {"a": 2}
    assert flattened(config)["a"] == 2
    assert text_section({**config, "thinker_config": None}) == {"a": 1}


def test_families_that_tie_are_told_by_the_section_or_else_the_root() -> None:
    assert ties_by_default({"model_type": "outer", "llm_config": {"model_type": "gemma3_text"}})
    assert ties_by_default({"model_type": "gemma3", "text_config": {}})
    assert not ties_by_default({"model_type": "gemma3", "text_config": {"model_type": "llama"}})
    assert not ties_by_default({})
