"""What a person reads who mistypes something: what is wrong, where, and what to do next."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_reader
import pytest

Here = Callable[..., Any]


def test_a_mistyped_option_is_told_with_the_one_that_was_meant(here: Here, small: Path, tmp_path: Path) -> None:
    result = here("convert", small, tmp_path / "x.gguf", "--tpye", "Q8_0")
    assert result.code == 64
    assert result.err == (
        "streamconv: convert: unknown argument --tpye, did you mean --type?\n"
        "  streamconv convert --help lists what it takes.\n"
    )


def test_an_option_like_no_other_is_told_alone(here: Here, small: Path, tmp_path: Path) -> None:
    assert "unknown argument --stop-after\n" in here("plan", small, tmp_path / "x.gguf", "--stop-after", "2h").err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_help_can_be_printed_in_every_encoding(run: Here, encoding: str) -> None:
    result = run("convert", "--help", env={"PYTHONIOENCODING": encoding})
    assert (result.code, result.err) == (0, "")


def test_a_name_that_is_no_text_can_be_printed(run: Here, small: Path, tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"x\xff.gguf")
    result = run("convert", small, out, "--type", "f16", env={"PYTHONIOENCODING": "utf-8"})
    assert (result.code, result.err) == (0, "")
    assert "x\\udcff.gguf: llama, F16" in result.out


def test_a_rule_that_matches_nothing_is_told(here: Here, small: Path, tmp_path: Path) -> None:
    rules = ["--tensor-type", "atn_v=F16", "--tensor-type", "ATTN_V=F16"]
    plan = here("plan", small, tmp_path / "x.gguf", "--type", "q4_0", *rules, "--json")
    assert json.loads(plan.out)["warnings"] == ["--tensor-type atn_v=F16: no tensor's name matches, so it does nothing"]


@pytest.mark.parametrize(
    ("option", "name"),
    [
        (["--tensor-type", "attn_v=F16"], "blk.1.attn_v.weight"),
        (["--token-embedding-type", "F16"], "token_embd.weight"),
    ],
)
def test_q8_0_takes_the_options_of_mixes(here: Here, small: Path, tmp_path: Path, option: list[str], name: str) -> None:
    out = tmp_path / "x.gguf"
    result = here("convert", small, out, "--type", "q8_0", *option)
    assert result.code == 0, result.err
    tensors = gguf_reader.read(out).tensors
    assert (tensors[name].type, tensors["blk.1.attn_q.weight"].type) == ("F16", "Q8_0")
