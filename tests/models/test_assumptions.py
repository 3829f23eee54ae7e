"""What config.json says otherwise than runtimes compute is refused or told, by key and value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_models import changed

import streamconv
from streamconv.errors import BadInput
from streamconv.models import FAMILIES


@pytest.mark.parametrize(
    ("case", "key", "value"),
    [
        ("mistral-spm", "hidden_act", "gelu"),
        ("mistral-spm", "partial_rotary_factor", 0.5),
        ("mistral-spm", "rope_parameters", {"rope_theta": 10000.0, "partial_rotary_factor": 0.25}),
        ("qwen2-yarn", "hidden_act", "relu"),
        ("gemma3-text", "hidden_activation", "silu"),
        ("gemma1", "attention_bias", True),
    ],
)
def test_what_no_key_of_the_output_can_say_is_refused(
    data: Path, tmp_path: Path, case: str, key: str, value: Any
) -> None:
    source = changed(data / "checkpoints" / case / "hf", tmp_path / "hf", config=lambda c: c.update({key: value}))
    with pytest.raises(BadInput, match=r"config\.json: '\w+' is .*, runtimes compute '\w+' with"):
        streamconv.plan(source, tmp_path / "x.gguf", vocab_only=True)


@pytest.mark.parametrize("value", [None, "silu"])
def test_what_runtimes_compute_is_fine(data: Path, tmp_path: Path, value: Any) -> None:
    mistral = data / "checkpoints" / "mistral-spm" / "hf"
    source = changed(mistral, tmp_path / "hf", config=lambda c: c.update(hidden_act=value, partial_rotary_factor=1.0))
    assert not [w for w in streamconv.plan(source, tmp_path / "x.gguf")["warnings"] if "hidden_act" in w]


def test_what_changes_long_texts_only_is_told(data: Path, tmp_path: Path) -> None:
    qwen = data / "checkpoints" / "qwen2-yarn" / "hf"
    source = changed(qwen, tmp_path / "hf", config=lambda c: c.update(use_sliding_window=True))
    warnings = streamconv.plan(source, tmp_path / "x.gguf", vocab_only=True, pre="qwen2")["warnings"]
    assert any("'use_sliding_window' is True, but runtimes" in text for text in warnings)


def test_defaults_are_what_is_assumed() -> None:
    for family in FAMILIES.values():
        for key, assumed in family.assumes.items():
            assert family.defaults.get(key) in (None, *assumed.values), f"{family.arch}: {key}"
