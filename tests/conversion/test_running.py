"""Running whatever is read: folders, GGUF files, merges."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import quantized_files

import streamconv
from streamconv.errors import BadInput, UsageError

MODEL = Path(__file__).resolve().parents[2] / "examples" / "tiny-gemma3"
DATA = Path(__file__).resolve().parents[1] / "data"
IDS = [2, 100, 200, 300, 7, 1999]


def test_a_folder_its_gguf_file_and_a_merge_with_itself_predict_the_same(tmp_path: Path) -> None:
    wanted = streamconv.logits(MODEL, IDS)
    assert wanted.shape == (6, 2048)
    assert wanted.dtype == np.float32
    streamconv.convert(MODEL, tmp_path / "m.gguf", type="BF16")
    assert streamconv.logits(tmp_path / "m.gguf", IDS).tobytes() == wanted.tobytes()
    recipe = tmp_path / "merge.yml"
    recipe.write_text(
        f"merge_method: linear\ndtype: float32\nmodels:\n  - model: {MODEL}\n    parameters: {{weight: 1.0}}\n"
    )
    np.testing.assert_allclose(streamconv.logits(recipe, IDS), wanted, atol=1e-4)


def test_a_quantized_file_predicts_nearly_the_same(tmp_path: Path) -> None:
    streamconv.convert(MODEL, tmp_path / "m.gguf", type="Q8_0")
    wanted, got = streamconv.logits(MODEL, IDS), streamconv.logits(tmp_path / "m.gguf", np.array(IDS))
    assert 0 < np.abs(got - wanted).max() < 0.2 * wanted.std()


def test_packed_weights_are_run_as_they_are_decoded(tmp_path: Path) -> None:
    folder, _ = quantized_files.llama(tmp_path / "packed")
    shutil.copy(DATA / "tokenizers" / "gemma1" / "tokenizer.model", folder)
    streamconv.convert(folder, tmp_path / "m.gguf", type="F32")
    assert (
        streamconv.logits(folder, [3, 500, 4]).tobytes()
        == streamconv.logits(tmp_path / "m.gguf", [3, 500, 4]).tobytes()
    )


def test_a_token_sees_those_before_it_only() -> None:
    np.testing.assert_allclose(streamconv.logits(MODEL, IDS[:3]), streamconv.logits(MODEL, IDS)[:3], atol=1e-4)


@pytest.mark.parametrize("ids", [[], [1.5], [[1, 2]], [-1], [2048], "12"])
def test_what_are_no_tokens_is_refused(ids: object) -> None:
    with pytest.raises(UsageError, match="token ids"):
        streamconv.logits(MODEL, ids)  # type: ignore[arg-type]


def test_an_architecture_that_is_not_computed_is_refused_by_name(tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(
        '{"architectures": ["MambaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 512}'
    )
    with pytest.raises(BadInput):
        streamconv.logits(tmp_path / "model", IDS)
