"""What is supported, as the command tells it from the code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import streamconv
from streamconv.cli import main
from streamconv.found import Plugin
from streamconv.models import FAMILIES, PROJECTORS
from streamconv.models.supported import supported

PACKAGE = Path(streamconv.__file__).parent


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*arguments: str) -> str:
        assert main(["families", *arguments]) == 0
        return capfd.readouterr().out

    return call


def test_every_architecture_is_listed_with_the_file_that_describes_it(told: Callable[..., str]) -> None:
    found: list[dict[str, Any]] = json.loads(told("--json"))
    for known, kind in ((FAMILIES.ours(), "text"), (PROJECTORS.ours(), "projector")):
        listed = {each["architecture"]: each for each in found if each["kind"] == kind and each["gguf"]}
        assert {name: each["gguf"] for name, each in listed.items()} == {n: f.arch for n, f in known.items()}
        for name, each in listed.items():
            assert f'"{name}"' in (PACKAGE / each["file"]).read_text()
            assert bool(each["tokenizers"]) == (known[name].tokenizer is not None)
    inside = [each for each in found if not each["gguf"]]
    assert "LlavaForConditionalGeneration" in {each["architecture"] for each in inside}
    assert all((PACKAGE / each["file"]).is_file() for each in inside)


def test_a_line_tells_the_vocabularies_that_are_read(told: Callable[..., str]) -> None:
    header, *listed = told().splitlines()
    assert header.split("  ")[0] == "architecture in config.json"
    lines = {line.split()[0]: line.split() for line in listed}
    assert header.index("in GGUF") == listed[0].index(lines[listed[0].split()[0]][1])
    assert len(lines) == len({each.architecture for each in supported()})
    assert " ".join(lines["Qwen2ForCausalLM"]) == (
        "Qwen2ForCausalLM qwen2 text SentencePiece or byte-level BPE models/families/qwen2.py"
    )
    assert "hy.tiktoken" in lines["HunYuanMoEV1ForCausalLM"]
    assert told("--quiet") == ""


def test_what_cannot_be_imported_is_passed_over_and_what_can_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered = [
        Plugin("streamconv.families", "AcmeForCausalLM", "streamconv.models.families.qwen2:FAMILY", "acme 1"),
        Plugin("streamconv.families", "BrokenForCausalLM", "nothing_of_that_name:FAMILY", "broken 1"),
    ]
    monkeypatch.setattr("streamconv.found.installed", lambda group: [p for p in offered if p.group == group])
    found = {each.architecture: each for each in supported()}
    assert found["AcmeForCausalLM"].file == "streamconv.models.families.qwen2:FAMILY of the package acme 1"
    assert "BrokenForCausalLM" not in found
