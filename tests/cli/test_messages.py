"""What a person reads who mistypes something: what is wrong, where, and what to do next."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_reader
import pytest

Here = Callable[..., Any]


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
