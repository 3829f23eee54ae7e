"""Models of random weights: keys and shapes of each in a file, values by the names of the tensors."""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from streamconv.forward import Model, open_model
from streamconv.metadata import Metadata, Value
from streamconv.rows import Floats, Rows, matrix_shape

DATA = Path(__file__).resolve().parent.parent / "data" / "forward"


class Numbers(Rows):
    """Random numbers of a deviation that keeps activations near 1."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape, self.dtype = name, shape, "F32"

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        out[...] = values(self.name, self.shape).reshape(matrix_shape(self.shape))[start:stop]


@cache
def values(name: str, shape: tuple[int, ...]) -> Floats:
    """The values of the tensor ``name``."""
    bits = np.random.default_rng(zlib.crc32(name.encode())).integers(-(1 << 15), 1 << 15, shape)
    unit = bits.astype(np.float32) / np.float32(1 << 15)
    if "rope_f" in name:
        return np.float32(1) + np.abs(unit)
    if name.endswith("ssm_a"):
        return -np.exp(unit)
    if name.endswith((".scale", "_scale.weight")):
        return np.float32(0.75) + unit * np.float32(0.25)
    if "norm" in name and name.endswith("weight"):
        return np.float32(1) + unit * np.float32(0.25)
    return unit * np.float32(0.125) if len(shape) < 2 else unit * np.float32(1.7 * shape[-1] ** -0.5)


def stated() -> dict[str, Any]:
    """Keys, shapes and tolerance of every model."""
    found: dict[str, Any] = json.loads((DATA / "models.json").read_text())
    return found


def metadata_of(keys: dict[str, Any]) -> Metadata:
    """Key/values: each is type, value and, of arrays, the type of elements."""
    return Metadata({key: Value(kind, value, *elem) for key, (kind, value, *elem) in keys.items()})


def model_of(name: str) -> Model:
    """The model ``name``."""
    facts = stated()[name]
    rows = {n: Numbers(n, tuple(shape)) for n, shape in facts["tensors"].items()}
    return open_model(rows, metadata_of(facts["keys"]), name)
