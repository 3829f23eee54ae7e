"""The reference set of damaged and hostile files, opened one by one."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter

import pytest

from streamconv.errors import StreamconvError
from streamconv.sources import open_checkpoint

#: what a look at the containers alone must notice; values and encodings are the business of later stages
CONTAINERS = ("st_", "index_", "gguf_", "torch_", "config_missing")
VALUES = ("st_value_",)


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_each_is_accepted_or_refused_as_it_should_be(reference: Path, io: str) -> None:
    root = reference / "golden" / "bad-inputs"
    cases = json.loads((root / "manifest.json").read_text())
    wrong = []
    for case in cases:
        if not case["id"].startswith(CONTAINERS) or case["id"].startswith(VALUES):
            continue
        begin = perf_counter()
        try:
            open_checkpoint(root / case["path"], io)  # type: ignore[arg-type]
            outcome, message = "accepted", ""
        except StreamconvError as e:
            outcome, message = "error", str(e).lower()
        words = [word.lower() for word in case["expect"]["message_mentions_any_of"]]
        if outcome != case["expect"]["outcome"] or (message and not any(word in message for word in words)):
            wrong.append((case["id"], outcome, message))
        if perf_counter() - begin > 2:
            wrong.append((case["id"], "slow", ""))
    assert not wrong
