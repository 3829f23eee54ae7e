"""What encoders of the BERT layout say, whatever their tokenizer."""

from __future__ import annotations

from ...errors import BadInput
from ...kit import cut
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..keys import context_length
from . import bert

_POOLS = {"mean": 1, "cls": 2}


def token_types(m: Metadata, _a: str, c: Config) -> None:
    """Segments that a token can be of."""
    m.u32(
        "tokenizer.ggml.token_type_count", c.integer("type_vocab_size") if c.get("type_vocab_size") is not None else 1
    )


def classifier_pooling(m: Metadata, a: str, c: Config) -> None:
    """What a classifier looks at, where it is said."""
    stated = c.get("classifier_pooling")
    if stated is None:
        return
    if stated not in _POOLS:
        raise BadInput(
            f"config.json: classifiers that pool by {stated!r} are not known", "Runtimes know 'cls' and 'mean'."
        )
    m.u32(f"{a}.classifier.pooling_type", _POOLS[stated])


def bare(name: str, c: Config) -> str:
    """``name`` without the prefix of the model's class."""
    for prefix in ("roberta.", "distilbert.", "model."):
        name = name.removeprefix(prefix)
    return bert.spelled(name, c)


def padding(c: Config) -> int:
    """Positions before the first, which the token of padding has for its own."""
    return c.integer("pad_token_id") + 1 if c.get("pad_token_id") is not None else 0


def behind_padding(rows: Rows, c: Config) -> Rows:
    """Positions of tokens alone."""
    return cut(rows, padding(c), rows.shape[0])


def length_behind_padding(m: Metadata, a: str, c: Config) -> None:
    """Positions of tokens alone."""
    context_length(m, a, c)
    key = f"{a}.context_length"
    if c.get("max_position_embeddings") is not None and key in m:
        m.u32(key, max(0, c.integer("max_position_embeddings") - padding(c)))
