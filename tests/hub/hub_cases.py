"""Names that the tests of the hub share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streamconv.sources import read_gguf

MODEL = "org/tiny-gemma3"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


def tensor_bytes(path: Path) -> bytes:
    """What follows the header, which holds the fingerprint of the job."""
    return path.read_bytes()[read_gguf(path).header.data_start :]
