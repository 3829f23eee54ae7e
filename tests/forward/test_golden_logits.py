"""Logits of whole checkpoints and of the files made of them, as transformers computes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import streamconv

#: no predictions are recorded of it: it is an encoder
OTHER = ("bert",)


@pytest.mark.slow
def test_logits_are_those_of_transformers(reference: Path) -> None:
    wrong, n_cases = [], 0
    for case in sorted((reference / "golden" / "gguf").iterdir()):
        if not (case / "logits.transformers.npy").exists() or case.name in OTHER:
            continue
        ids, want = json.loads((case / "case.json").read_text())["token_ids"], np.load(case / "logits.transformers.npy")
        for source in filter(Path.exists, (case / "hf", case / "f32.gguf")):
            n_cases += 1
            off = np.abs(streamconv.logits(source, ids) - want).max() / want.std()
            if not off < 2e-5:
                wrong.append(f"{case.name}/{source.name}: {off:.2g}")
    assert not wrong
    assert n_cases > 30
