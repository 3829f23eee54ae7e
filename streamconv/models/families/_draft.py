"""What draft models share, which help another model: tokens of their own smaller vocabulary, layers that they listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import BadInput
from ...metadata import Metadata
from ...rows import Bytes, Floats, Rows
from ...sources.hf_config import flattened, section
from ..config import Config
from ..rules import Rule


class TokenIds(Rows):
    """For each token of a draft its id in the vocabulary of the model it helps; stored as the distance from its own id.

    Parameters
    ----------
    distances : numbers[n]
    n_tokens : of the model it helps
    """

    def __init__(self, distances: Rows, n_tokens: int) -> None:
        self.distances = distances
        self.n_tokens = n_tokens
        self.shape = distances.shape
        self.dtype = "I64"

    def _ids(self, start: int, stop: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        ids = self.distances.read(start, stop).astype(np.int64)
        ids += np.arange(ids.shape[1])
        if ids.size and (ids.min() < 0 or ids.max() >= self.n_tokens or np.unique(ids).size != ids.size):
            raise BadInput(
                f"tensor 'd2t' does not name {ids.size} different tokens of the {self.n_tokens} of the model it helps",
                "The draft model and --target-model-dir do not belong together.",
            )
        return ids

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        out[...] = self._ids(start, stop)

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The ids as 64-bit numbers."""
        return self._ids(start, stop).view(np.uint8) if kind == "I64" else None


def _tokens(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    if len(rows[0].shape) != 1:
        raise ValueError("it is no vector")
    of_target = flattened(c.target.config).get("vocab_size")
    return [TokenIds(rows[0], of_target if isinstance(of_target, int) else c.integer("vocab_size"))]


#: the tokens of a draft whose vocabulary is a part of that of the model it helps
OWN_TOKENS = Rule(("d2t",), ("d2t",), _tokens, last=True)


def listens_to(m: Metadata, a: str, layers: Sequence[Any], c: Config) -> None:
    """The layers whose results a draft reads (BadInput: that is no list of numbers)."""
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in layers):
        raise BadInput(f"{c.place}: the layers of the model that it helps are {list(layers)}, not numbers")
    m.array(f"{a}.target_layers", "INT32", list(layers))


def with_layer_config(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json with the keys of its layers, which speculators keep apart, in the root."""
    found = flattened(raw)
    kind = {"model_type": found["model_type"]} if "model_type" in found else {}
    return {**found, **section(found, "transformer_layer_config"), **kind}
