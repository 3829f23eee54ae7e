"""Models of every architecture as names and shapes, whose values follow from the names; they are built without a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from small_models import Tensors as Files
from small_models import write_safetensors

from streamconv.models import FAMILIES, Model, build, projector_of
from streamconv.models.config import Further, architecture
from streamconv.rows import Floats, Rows, matrix_shape
from streamconv.sources.checkpoint import Checkpoint
from streamconv.sources.folder import SPEECH

STORED = Path(__file__).resolve().parents[1] / "data" / "families.json"
PROJECTORS = STORED.with_name("projectors.json")
#: what a toy is, in order: name of a tensor with ``#`` for the numbers of blocks, these, and its shape
Tensors = list[tuple[str, list[int], list[int]]]


class Named(Rows):
    """Numbers between -1 and 1 that follow from a name."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name = name
        self.shape = shape
        self.dtype = "F32"

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        seed = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "little")
        n_cols = matrix_shape(self.shape)[1]
        at = np.arange(start * n_cols, stop * n_cols, dtype=np.uint64)
        mixed = (at + np.uint64(seed)) * np.uint64(0x9E3779B1) >> np.uint64(7)
        out[...] = ((mixed & np.uint64(0xFFFF)).astype(np.float32) / 32768 - 1).reshape(out.shape)
        if self.name.endswith("running_var"):  # no variance is below 0
            np.abs(out, out=out)


def packed(shapes: Mapping[str, list[int]]) -> Tensors:
    """Names and shapes with blocks that are alike said once."""
    found: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for name, shape in shapes.items():
        parts = name.split(".")
        at = next((n for n, part in enumerate(parts) if part.isdecimal()), None)
        blocks = found.setdefault((".".join("#" if n == at else p for n, p in enumerate(parts)), tuple(shape)), [])
        if at is not None:
            blocks.append(int(parts[at]))
    return [(name, blocks, list(shape)) for (name, shape), blocks in found.items()]


def unpacked(tensors: Tensors) -> Iterator[tuple[str, list[int]]]:
    """Names and shapes, one by one."""
    for name, blocks, shape in tensors:
        yield from ((name.replace("#", str(block), 1), shape) for block in blocks) if blocks else ((name, shape),)


def stored(path: Path = STORED) -> dict[str, dict[str, Any]]:
    """The recorded toys by name."""
    return {toy["name"]: toy for toy in map(json.loads, path.read_text("utf-8").splitlines())}


def built(
    toy: Mapping[str, Any],
    config: Callable[[dict[str, Any]], Any] = lambda c: None,
    tensors: Callable[[dict[str, list[int]]], Any] = lambda t: None,
    further: Further = "kept",
) -> Model:
    """The model of a toy, without a tokenizer, after its config.json and its shapes have been changed."""
    stated, shapes = json.loads(json.dumps(toy["config"])), dict(unpacked(toy["tensors"]))
    config(stated)
    tensors(shapes)
    rows = {name: Named(name, tuple(shape)) for name, shape in sorted(shapes.items())}
    side = {name: json.dumps(content).encode() for name, content in toy["side"].items()}
    checkpoint = Checkpoint(Path("toy"), rows, stated, (), side=side)
    family = projector_of(checkpoint) if toy.get("projector") else FAMILIES[architecture(stated)]
    if family.target:
        checkpoint = replace(checkpoint, target=Checkpoint(Path("target"), {}, toy.get("target", stated), ()))
    return build(checkpoint, replace(family, tokenizer=None), further=further)


def written(folder: Path, toy: Mapping[str, Any]) -> Path:
    """The toy as it is published, in a new folder: what makes sound in a folder of its own, no tokenizer."""
    own, speech = Files(), Files()
    for name, shape in unpacked(toy["tensors"]):
        values = Named(name, tuple(shape)).read(0, matrix_shape(tuple(shape))[0]).reshape(shape)
        here, inner = (speech, name.removeprefix(f"{SPEECH}.")) if name.startswith(SPEECH) else (own, name)
        here[inner] = "F32", values
    for place, tensors in ((folder, own), (folder / SPEECH, speech)):
        if tensors:
            place.mkdir()
            write_safetensors(place / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(toy["config"]))
    for name, content in toy["side"].items():
        (folder / name).write_text(json.dumps(content))
    return folder


def digest(model: Model) -> str:
    """Of all numbers of all tensors."""
    found = hashlib.sha256()
    for name, rows in model.tensors.items():
        n_rows, n_cols = matrix_shape(rows.shape)
        found.update(name.encode() + rows.read(0, n_rows).tobytes() if n_rows * n_cols else b"")
    return found.hexdigest()[:16]


def keys(model: Model) -> dict[str, Any]:
    """Keys of the architecture, numbers as float32 holds them."""

    def plain(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [plain(each) for each in value]
        return float(np.float32(value)) if isinstance(value, float) else value

    return {
        key: plain(value.value)
        for key, value in model.metadata.items()
        if not key.startswith(("general.", "tokenizer."))
    }


def shapes(model: Model) -> dict[str, list[int]]:
    """Tensors in order, the slowest dimension first."""
    return {name: list(rows.shape) for name, rows in model.tensors.items()}
