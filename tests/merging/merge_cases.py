"""Helpers of the merge tests: recorded cases, recipes written to files, and the rule by which results are compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from small_models import write_safetensors

from streamconv import merging, sources
from streamconv.rows import Rows, matrix_shape
from streamconv.sources.checkpoint import Checkpoint

DATA = Path(__file__).resolve().parents[1] / "data" / "merging"
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 304,
    "tie_word_embeddings": False,
}  # fmt: skip
#: cases that depend on an order of equal magnitudes, or on a threshold
_TIES = ("ties", "breadcrumbs", "sce", "della", "dare", "arcee")


@cache
def cases() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((DATA / "cases.json").read_text())
    return found


@cache
def arrays(owner: str) -> dict[str, np.ndarray]:
    """Tensor name -> words of a case or a model."""
    with np.load(DATA / "tensors.npz") as file:
        return {key.split(":")[1]: file[key] for key in file.files if key.split(":")[0] == owner}


def floats(words: np.ndarray) -> np.ndarray:
    """The values of float32, float16 or (as uint16) bfloat16 words."""
    return (words.astype("<u4") << 16).view("<f4") if words.dtype == np.uint16 else words.astype("<f4")


def words_of(dtype: str, values: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(values, "<f4")
    return (values.view("<u4") >> 16).astype("<u2") if dtype == "BF16" else values


def write_model(folder: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], dtype: str = "") -> Path:
    """A checkpoint folder; arrays are words, uint16 being bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"uint16": "BF16", "float16": "F16", "float32": "F32", "int64": "I64"}
    write_safetensors(folder / "model.safetensors", {n: (dtype or kinds[str(w.dtype)], w) for n, w in tensors.items()})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def random_model(
    folder: Path, seed: int, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], dtype: str = "F32"
) -> Path:
    """A model of the given tensors; those of seed 0 plus a tenth of noise."""
    tensors = {}
    for number, (name, shape) in enumerate(shapes.items()):
        values = np.random.default_rng(number).standard_normal(shape)
        values = values + 0.1 * np.random.default_rng([seed, number]).standard_normal(shape) * bool(seed)
        tensors[name] = words_of(dtype, values)
    return write_model(folder, tensors, config)


def open_text(folder: Path, recipe: str | Mapping[str, Any], **settings: Any) -> Checkpoint:
    """The merge of a recipe whose models are relative to ``folder``."""
    text = recipe if isinstance(recipe, str) else yaml.safe_dump(recipe, sort_keys=False)
    path = folder / "my-recipe.yml"
    path.write_text(text)
    return merging.open_recipe(
        path,
        lambda reference: sources.open_checkpoint(folder / reference),
        open_adapter=lambda reference: merging.lora.open_adapter(folder / reference),
        **settings,
    )


def values_of(rows: Rows, step: int | None = None) -> np.ndarray:
    """All values, read ``step`` rows at a time."""
    n_rows, n_cols = matrix_shape(rows.shape)
    step = step or max(1, n_rows)
    parts = [rows.read(a, min(a + step, n_rows)) for a in range(0, n_rows, step)]
    return np.concatenate(parts).reshape(rows.shape) if parts else np.empty((0, n_cols), np.float32)


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from numbers(entry)
    elif isinstance(value, int | float):
        yield float(value)


def difference(case: str, dtype: str, want: np.ndarray, got: np.ndarray, gap: Any) -> str | None:
    """What is wrong with ``got``, None when it is as close as two float32 implementations are.

    gap : how far mergekit's own bfloat16 and float32 arithmetic are apart, where they are
    """
    rms = float(np.sqrt(np.mean(want.astype(np.float64) ** 2))) or 1.0
    error = np.abs(want - got)
    tied = any(word in case for word in _TIES)
    relative = float(np.sqrt(np.mean(error.astype(np.float64) ** 2)) / rms)
    if gap:
        limit = max(0.02, 1.5 * max([n for n in numbers(gap) if n < 1] + [1e-3]) + 1e-3)
        return None if relative <= limit else f"relative RMS error {relative:.2e}"
    if dtype == "F32":
        far = float((error > 2e-6 * rms).mean())
        return None if far <= (2e-3 if tied else 0) else f"{far:.2%} of elements are off"
    step = np.abs(want) * (2**-7 if dtype == "BF16" else 2**-10) + 1e-30
    far, some = float((error > 1.01 * step).mean()), float((error > 0).mean())
    few = some * want.size <= max(1, (0.02 if tied else 0.005) * want.size)
    return None if few and far <= (4e-3 if tied else 0) else f"{some:.2%} differ, {far:.2%} by more than one unit"
