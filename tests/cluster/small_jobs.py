"""The jobs of the tests with real workers: three fine-tunes of a small model, and what is made of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from dask_processes import digests
from small_models import read_safetensors, write_safetensors

import streamconv

CHUNKS = ("--chunk-size", "32KiB")


class Kind(NamedTuple):
    """What is converted, to what, in which types."""

    source: str
    output: str
    types: str


KINDS = {
    "types": Kind("a", "x-{type}.gguf", "Q4_K_M,IQ3_S,Q6_K"),
    "ties": Kind("ties.yml", "x.gguf", "Q4_K_M"),
    "plain": Kind("a", "x.gguf", "IQ3_S"),
}


def make_models(root: Path, tiny_model: Path) -> Path:
    """Three fine-tunes and the recipe that merges them, in ``root``."""
    tensors = read_safetensors(tiny_model / "model.safetensors")
    for at, name in enumerate("abc"):
        (root / name).mkdir()
        for path in tiny_model.iterdir():
            if path.is_file() and path.name != "model.safetensors":
                shutil.copy(path, root / name)
        changed = {n: (t, (v ^ (1 << at)) if v.dtype.kind == "u" and at else v) for n, (t, v) in tensors.items()}
        write_safetensors(root / name / "model.safetensors", changed)
    recipe = {
        "merge_method": "ties", "base_model": str(root / "a"), "parameters": {"weight": 0.5, "density": 0.6},
        "models": [{"model": str(root / "b")}, {"model": str(root / "c")}], "dtype": "bfloat16",
    }  # fmt: skip
    (root / "ties.yml").write_text(json.dumps(recipe))
    return root


def made_by_threads(model: Path, root: Path) -> dict[str, dict[str, str]]:
    """Digests of what threads make of each kind of job."""
    found = {}
    for name, kind in KINDS.items():
        folder = root / name
        folder.mkdir()
        streamconv.convert(model / kind.source, folder / kind.output, type=kind.types, chunk_bytes="32KiB")
        found[name] = digests(folder)
    return found


def arguments(model: Path, folder: Path, job: str, cluster: str | None) -> list[str]:
    """The command line of a job of the kind ``job``, whose outputs are in ``folder``."""
    kind = KINDS[job]
    folder.mkdir(exist_ok=True)
    given = ["--cluster", cluster] if cluster else []
    return [str(model / kind.source), str(folder / kind.output), "--type", kind.types, *CHUNKS, *given]
