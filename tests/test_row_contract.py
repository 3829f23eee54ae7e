"""Every kind of rows keeps the contract of ``streamconv/rows.py``; a new kind is a new line here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from row_contract import check_rows, values_of
from small_models import write_safetensors

import streamconv
from streamconv import dequant, merging, sources
from streamconv.models.transforms import Constant, FirstRows, Interleaved, PlusOne
from streamconv.rows import Rows

DATA = Path(__file__).resolve().parent / "data"
PLAIN = DATA / "checkpoints" / "mistral-spm" / "hf"
QUERY, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
Kind = Callable[[Path], Iterable[Rows]]


def transformed(tmp_path: Path) -> Iterable[Rows]:
    plain = sources.open_checkpoint(PLAIN).tensors
    yield Interleaved(plain[QUERY], 4)
    yield Interleaved(Constant(np.arange(64, dtype=np.float32)), 4)
    yield FirstRows(plain[QUERY], 37)
    yield PlusOne(plain[NORM])
    yield PlusOne(Interleaved(plain[QUERY], 2))


def gguf(tmp_path: Path) -> Iterable[Rows]:
    files = [streamconv.convert(PLAIN, tmp_path / f"{name}.gguf", type=name)[0] for name in ("Q8_0", "BF16")]
    return [rows for path in files for rows in sources.open_checkpoint(path).tensors.values()]


def decoded(tmp_path: Path) -> Iterable[Rows]:
    stored = sources.open_checkpoint(DATA / "dequant" / "encodings.safetensors")
    for case in json.loads((DATA / "dequant" / "cases.json").read_text()):
        rows = dequant.decoded(stored, case["quantization_config"], lenient=True).tensors[case["name"]]
        assert isinstance(rows, dequant.DecodedRows)
        yield rows
        yield rows.as_saved()


def models(folder: Path) -> None:
    """Models ``a``, ``b`` and ``c`` of one shape, and an adapter ``d`` for them."""
    plain = sources.open_checkpoint(PLAIN)
    config = (PLAIN / "config.json").read_text()
    for seed, name in enumerate("abc"):
        rng = np.random.default_rng(seed)
        noisy = {
            n: ("F32", values_of(rows) + rng.standard_normal(rows.shape, np.float32) * np.float32(0.05))
            for n, rows in plain.tensors.items()
        }
        (folder / name).mkdir()
        write_safetensors(folder / name / "model.safetensors", noisy)
        (folder / name / "config.json").write_text(config)
    rng = np.random.default_rng(9)
    path = f"base_model.model.{QUERY.removesuffix('.weight')}"
    factors = {f"{path}.lora_A.weight": (2, 64), f"{path}.lora_B.weight": (64, 2)}
    (folder / "d").mkdir()
    write_safetensors(
        folder / "d" / "adapter_model.safetensors",
        {n: ("F32", rng.standard_normal(shape, np.float32)) for n, shape in factors.items()},
    )
    (folder / "d" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))


def merged(recipe: str) -> Kind:
    def opened(tmp_path: Path) -> Iterable[Rows]:
        models(tmp_path)
        (tmp_path / "recipe.yml").write_text(recipe)
        found = merging.open_recipe(
            tmp_path / "recipe.yml",
            lambda reference: sources.open_checkpoint(tmp_path / reference),
            open_adapter=lambda reference: merging.lora.open_adapter(tmp_path / reference),
        )
        return found.tensors.values()

    return opened


_OTHERS = (
    "models: [{model: b, parameters: {weight: 1, density: 0.4}}, {model: c, parameters: {weight: 0.5, density: 0.7}}]"
)
KINDS: dict[str, Kind] = {
    "safetensors": lambda tmp_path: sources.open_checkpoint(PLAIN).tensors.values(),
    "torch": lambda tmp_path: sources.open_checkpoint(DATA / "torch" / "zip_views_shared_bf16.bin").tensors.values(),
    "old torch": lambda tmp_path: sources.open_checkpoint(
        DATA / "torch" / "legacy_views_shared_bf16.bin"
    ).tensors.values(),
    "gguf": gguf,
    "transformed": transformed,
    "decoded": decoded,
    "linear": merged("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 2}}]"),
    "ties": merged(f"merge_method: ties\nbase_model: a\n{_OTHERS}\ndtype: bfloat16"),
    "dare": merged(f"merge_method: dare_ties\nbase_model: a\n{_OTHERS}"),
    "slerp": merged("merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0.3}\ndtype: float16"),
    "adapter": merged("merge_method: passthrough\nmodels: [{model: a+d}]"),
    "mixture": merged(
        "base_model: a\ngate_mode: random\ndtype: bfloat16\n"
        "experts: [{source_model: a}, {source_model: b, noise_scale: 0.1, residual_scale: 0.5}]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_any_cut_of_the_rows_has_the_bits_of_the_whole(kind: str, tmp_path: Path) -> None:
    found = list(KINDS[kind](tmp_path))
    assert found
    for rows in found:
        check_rows(rows)
