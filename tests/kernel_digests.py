"""Digests of what kernels and planning make: whatever decides bytes beside the plan.

    python tests/kernel_digests.py quant dequant       prints those of these groups as JSON
    python tests/kernel_digests.py --record            writes tests/data/kernel_digests.json anew

Recorded digests are kept by ``KERNEL_ABI``. Under one number they never change, so that a job that an older version began is
never gone on with by a version whose kernels give other bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS), str(TESTS / "merging")]
RECORDED = TESTS / "data" / "kernel_digests.json"
#: types whose searches take long to compile
SLOW = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")
Found = Iterator[tuple[str, np.ndarray]]


def quant(names: Iterable[str] = ()) -> Found:
    """Blocks of every type, and what they decode to."""
    import streamconv
    from streamconv.quant.base import codec, has_codec
    from streamconv.quant.types import TYPES

    with np.load(TESTS / "data" / "quants" / "golden.npz") as file:
        x, weights = file["mixed.x"], file["mixed.imatrix"]
    for name in names or [t for t in TYPES if has_codec(t) and t not in SLOW]:
        for importance in (weights, None):
            if importance is not None or not codec(name).needs_weights:
                yield name, (blocks := streamconv.quantize(x, name, imatrix=importance))
        yield name, streamconv.dequantize(blocks, name, x.shape[1])


def grids() -> Found:
    """The same of the types that search grids."""
    yield from quant(SLOW)


def sbs() -> Found:
    """The same of gemma.cpp's types."""
    from streamconv import sbs

    with np.load(TESTS / "data" / "quants" / "golden.npz") as file:
        x = file["mixed.x"][:8].reshape(-1)
    for name in ("f32", "bf16", "sfp", "nuq", "i8"):
        packed, scale = sbs.encode(x, name)
        yield name, packed
        yield name, sbs.decode(packed, name, len(x), float(scale))


def dequant() -> Found:
    """Every recorded encoding."""
    from row_contract import values_of

    from streamconv import dequant, sources

    stored = sources.open_checkpoint(TESTS / "data" / "dequant" / "encodings.safetensors")
    for case in json.loads((TESTS / "data" / "dequant" / "cases.json").read_text()):
        stem = ".".join(case["name"].split(".")[:2])
        own = {name: rows for name, rows in stored.tensors.items() if name.startswith(stem)}
        found = dequant.decoded(replace(stored, tensors=own), case["quantization_config"], lenient=True)
        yield case["name"], values_of(found.tensors[case["name"]])


def merging() -> Found:
    """Every recorded merge, adapters and factors."""
    from merge_cases import CONFIG, arrays, cases, open_text, write_model
    from row_contract import values_of

    with tempfile.TemporaryDirectory() as folder:
        for kind in ("llama", "llama_bf16"):
            for name in ("base", "ft1", "ft2", "ft3"):
                model = f"inputs/{kind}/{name}"
                write_model(Path(folder) / model, arrays(model), CONFIG)
        for name, case in cases().items():
            for rows in open_text(Path(folder), case["recipe"]).tensors.values():
                yield name, values_of(rows)


def changes() -> Found:
    """Matrices that adapters change, the factors of a difference, and rows that went through a layer."""
    from small_models import write_safetensors

    from streamconv import sources
    from streamconv.kit import ACTIVATIONS, Mapped, Projected
    from streamconv.merging.extraction.factors import LeftRows, RightRows, Settings
    from streamconv.merging.lora_rows import DoraColumns, DoraRows, Kept, LoraRows, LowRank

    rng = np.random.default_rng(5)
    shapes = {"base": (70, 40), "tuned": (70, 40), "a": (3, 40), "b": (70, 3), "rows": (70,), "columns": (40,),
              "a_in": (3, 70), "b_out": (40, 3)}  # fmt: skip
    # fractions of powers of two: the same wherever they are made
    made = {n: ("F32", (rng.integers(-999, 999, s) / 1024).astype(np.float32)) for n, s in shapes.items()}
    with tempfile.TemporaryDirectory() as folder:
        m = sources.open_checkpoint(write_safetensors(Path(folder) / "m.safetensors", made)).tensors
        update = LowRank("w", m["a"], m["b"], 0.5, False, Kept())
        right = RightRows("w", m["base"], m["tuned"], Settings(4))
        for name, rows in {
            "low rank": LoraRows(m["base"], update),
            "rows of a length": DoraRows(m["base"], update, m["rows"]),
            "columns of a length": DoraColumns(
                m["base"], LowRank("w", m["a_in"], m["b_out"], 0.5, True, Kept()), m["columns"]
            ),
            "right factor": right,
            "left factor": LeftRows(right),
            "projected": (projected := Projected(m["base"], m["tuned"], m["rows"])),
            "projected and activated": Mapped(projected, ACTIVATIONS["silu"]),
        }.items():
            yield name, rows.read(0, rows.shape[0])


def planning() -> Found:
    """Values that are made while planning: RoPE factors of many bases, widths and scales."""
    from streamconv.models.config import normalise
    from streamconv.models.families.llama import FAMILY, rope_factors

    for theta in (10000, 12345.678, 500000.0, 1e6, 12000000.0, 1.7e8):
        for dim in (8, 16, 64, 80, 96, 128, 256):
            for factor, original in ((8.0, 8192), (32.0, 8192), (2.5, 64)):
                rope = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": original}  # fmt: skip
                config = normalise({"head_dim": dim, "rope_theta": theta, "rope_scaling": rope}, FAMILY.classes)
                yield f"rope {theta}", rope_factors(config)


GROUPS: dict[str, Callable[[], Found]] = {
    "planning": planning, "quant": quant, "sbs": sbs, "dequant": dequant, "merging": merging, "changes": changes, "grids": grids,
}  # fmt: skip


def digests(*groups: str) -> dict[str, str]:
    """A digest for each name in these groups."""
    found: dict[str, Any] = {}
    for group in groups:
        for name, made in GROUPS[group]():
            found.setdefault(f"{group}: {name}", hashlib.sha256()).update(np.ascontiguousarray(made).tobytes())
    return {name: digest.hexdigest()[:16] for name, digest in found.items()}


def recorded() -> dict[str, dict[str, str]]:
    """What is recorded, by ``KERNEL_ABI``."""
    found: dict[str, Any] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    return found


def record() -> None:
    """Write the digests of this code under its ``KERNEL_ABI``, unless others are there."""
    from streamconv.engine.plan import KERNEL_ABI

    now, before = digests(*GROUPS), recorded()
    known = before.get(str(KERNEL_ABI), {})
    changed = [name for name in known if name in now and now[name] != known[name]]
    if changed:
        sys.exit(f"KERNEL_ABI is still {KERNEL_ABI}, but {changed[0]} and {len(changed) - 1} more are others: raise it")
    RECORDED.write_text(json.dumps({**before, str(KERNEL_ABI): now}, indent=1) + "\n")


if __name__ == "__main__":
    record() if sys.argv[1:] == ["--record"] else print(json.dumps(digests(*sys.argv[1:])))
