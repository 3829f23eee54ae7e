"""Adapters that MLX trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from merge_cases import write_model
from small_models import write_safetensors
from test_lora import EMBEDDING, LLAMA, N_IN, N_OUT, RANK, VOCABULARY, Q, applied, base_model, close, numbers

from streamconv.errors import BadInput, InputMissing
from streamconv.merging import lora

PARAMETERS = {"rank": RANK, "scale": 20.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
A, B = numbers(N_IN, RANK, seed=2), numbers(RANK, N_OUT, seed=3)
FACTORS = {f"{Q}.lora_a": A, f"{Q}.lora_b": B}


def adapter(folder: Path, tensors: Mapping[str, np.ndarray], **config: Any) -> Path:
    folder.mkdir()
    write_safetensors(folder / "adapters.safetensors", {n: ("F32", t) for n, t in tensors.items()})
    settings = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": PARAMETERS, "model": "org/base", **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("scale", [20.0, 2, 0.1])
def test_factors_are_transposed_and_the_scale_is_the_scale(tmp_path: Path, scale: float) -> None:
    base = base_model(tmp_path / "base")
    adapter(tmp_path / "adapter", FACTORS, lora_parameters={**PARAMETERS, "scale": scale})
    close(applied(tmp_path).tensors[f"{Q}.weight"], base[f"{Q}.weight"] + scale * (A.astype(np.float64) @ B).T)


def test_an_embedding_has_its_factors_the_other_way_round(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    a, b = numbers(VOCABULARY, RANK, seed=4), numbers(RANK, N_IN, seed=5)
    adapter(tmp_path / "adapter", {f"{EMBEDDING}.lora_a": a, f"{EMBEDDING}.lora_b": b})
    want = base[f"{EMBEDDING}.weight"] + 20 * (a.astype(np.float64) @ b)
    close(applied(tmp_path).tensors[f"{EMBEDDING}.weight"], want)


def test_an_embedding_is_known_by_the_names_that_models_have(tmp_path: Path) -> None:
    embedding = numbers(VOCABULARY, N_IN)
    write_model(tmp_path / "base", {"backbone.embeddings.weight": embedding}, LLAMA)
    a, b = numbers(VOCABULARY, RANK, seed=4), numbers(RANK, N_IN, seed=5)
    adapter(tmp_path / "adapter", {"backbone.embeddings.lora_a": a, "backbone.embeddings.lora_b": b})
    want = embedding + 20 * (a.astype(np.float64) @ b)
    close(applied(tmp_path).tensors["backbone.embeddings.weight"], want)


def test_lengths_of_dora_are_those_of_rows(tmp_path: Path) -> None:
    base, lengths = base_model(tmp_path / "base"), np.abs(numbers(N_OUT, seed=6)) + 1
    adapter(tmp_path / "adapter", {**FACTORS, f"{Q}.m": lengths}, fine_tune_type="dora")
    changed = base[f"{Q}.weight"] + 20 * (A.astype(np.float64) @ B).T
    want = changed * (lengths / np.linalg.norm(changed, axis=1))[:, None]
    close(applied(tmp_path).tensors[f"{Q}.weight"], want)


def test_whole_tensors_take_the_place_of_the_models(tmp_path: Path) -> None:
    base_model(tmp_path / "base")
    weight = numbers(N_OUT, N_IN, seed=7)
    adapter(tmp_path / "adapter", {f"{Q}.weight": weight}, fine_tune_type="full")
    close(applied(tmp_path).tensors[f"{Q}.weight"], weight)


@pytest.mark.parametrize(("tensors", "config"), [
    (FACTORS, {"fine_tune_type": "acme"}), (FACTORS, {"lora_parameters": {"rank": RANK}}), (FACTORS, {"lora_parameters": None}),
    (FACTORS, {"lora_parameters": {**PARAMETERS, "scale": float("inf")}}),
    (FACTORS, {"lora_parameters": {**PARAMETERS, "rank": 8}}),
    (FACTORS, {"lora_parameters": {**PARAMETERS, "scale": True}}), ({**FACTORS, f"{Q}.lora_c": A}, {}), ({}, {}),
    ({**FACTORS, f"{Q}.m": numbers(N_OUT)}, {}), ({f"{EMBEDDING}.lora_a": A, f"{EMBEDDING}.m": A[0]}, {"fine_tune_type": "dora"}),
    ({f"{Q}.lora_a": numbers(2, N_IN, RANK), f"{Q}.lora_b": B}, {}),
])  # fmt: skip
def test_what_is_not_understood_is_refused_as_an_adapter_of_mlx(tmp_path: Path, tensors: Any, config: Any) -> None:
    folder = adapter(tmp_path / "adapter", tensors, **config)
    with pytest.raises(BadInput, match="MLX adapter"):
        lora.open_adapter(folder)


def test_an_adapter_of_mlx_without_its_file_is_told(tmp_path: Path) -> None:
    (adapter(tmp_path / "adapter", FACTORS) / "adapters.safetensors").unlink()
    with pytest.raises(InputMissing, match=r"MLX adapter without adapters\.safetensors"):
        lora.open_adapter(tmp_path / "adapter")
