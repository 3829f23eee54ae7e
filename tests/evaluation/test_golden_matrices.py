"""Importance matrices and statistics against what llama.cpp's tools recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from streamconv import evaluation
from streamconv.conversion import Options
from streamconv.evaluation import Request
from streamconv.forward.divergence import perplexity
from streamconv.progress import Silent
from streamconv.quant.imatrix_files import read_imatrix_file

CASES = ("mistral-spm", "mixtral-moe", "deepseek2-lite", "qwen2moe", "phi2", "falcon")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_entries_counts_sums_and_perplexity_are_those_of_llama_imatrix(
    reference: Path, tmp_path: Path, name: str
) -> None:
    case = reference / "golden" / "forward" / name
    facts = json.loads((case / "case.json").read_text())
    model, text = reference / "golden" / facts["model"], reference / facts["text"]
    request, options = Request(text, 64, 8), Options()
    measurement = evaluation.prepare_imatrix(model, tmp_path / "m.gguf", request, options)
    made = evaluation.write_imatrix(measurement, options, Silent())
    assert made is not None
    assert made.log_p is not None
    found, want = (read_imatrix_file(p).entries for p in (measurement.plan.output, case / "c64.imatrix.gguf"))
    assert list(found) == list(want)
    few = 0
    for entry, theirs in ((found[n], want[n]) for n in want):
        assert entry.counts.tolist() == theirs.counts.tolist()
        error = np.abs(entry.sums - theirs.sums) / np.maximum(theirs.sums, 1e-6 * theirs.sums.max() + 1e-30)
        assert np.quantile(error, 0.99) < 5e-3
    for block in range(measurement.model.n_layers):
        counts = want.get(f"blk.{block}.ffn_down_exps.weight")
        few += 0 if counts is None else int((counts.counts < 256).sum())
    assert made.few_visits == few
    ppl = facts["imatrix"]["c64"]["ppl"][0]
    assert abs(np.log(perplexity(made.log_p.reshape(-1)).value / ppl)) < 2e-3 + 3e-4 * np.log(ppl)
