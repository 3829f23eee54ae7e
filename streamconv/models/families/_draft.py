"""What draft models share, which help another model: tokens of their own smaller vocabulary, layers that they listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import BadInput
from ...kit import Order, take
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
    n = c.integer("draft_vocab_size") if c.get("draft_vocab_size") else rows[0].shape[0]
    if rows[0].shape != (n,):
        raise ValueError(f"there are {n} tokens")
    of_target = flattened(c.target.config).get("vocab_size")
    return [TokenIds(rows[0], of_target if isinstance(of_target, int) else c.integer("vocab_size"))]


#: the tokens of a draft whose vocabulary is a part of that of the model it helps
OWN_TOKENS = Rule(("d2t",), ("d2t",), _tokens, last=True)


def listens_to(m: Metadata, a: str, c: Config, layers: Any, offset: int = 1) -> None:
    """The layers of the model it helps from whose results a draft is made; their numbers ``offset`` higher than stated.

    Errors: BadInput where ``layers`` is no list of numbers
    """
    if not isinstance(layers, list) or not all(isinstance(n, int) and n + offset >= 0 for n in layers):
        raise BadInput(f"{c.place}: the layers of the model that it helps are {layers!r}, not a list of numbers")
    m.array(f"{a}.target_layers", "INT32", [n + offset for n in layers])


def by_parity(rows: Rows, c: Config) -> Rows:
    """In each head the dimensions of even number first, where those that rotate together lie side by side."""
    if c.get("rope_is_neox_style") is not False:
        return rows
    n, width = rows.shape[0], c.head_dim
    if n % width:
        raise ValueError(f"{n} rows are not heads of {width}")
    return take(rows, Order((n // width, 2, width // 2), (width, 1, 2)))


def with_layer_config(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json with the keys of its layers, which speculators keep apart, in the root."""
    found = flattened(raw)
    kind = {"model_type": found["model_type"]} if "model_type" in found else {}
    return {**found, **section(found, "transformer_layer_config"), **kind}
