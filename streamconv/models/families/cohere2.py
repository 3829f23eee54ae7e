"""Command R7B and A: Command R with windows in three of four layers, and positions in these only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed, layers
from ..config import Config, head_width
from ..family import Family, class_defaults
from ..keys import BASE, sliding_window, vocab_size
from ..rules import Rule
from ..tokenizers import BPE
from . import cohere
from .gemma import UNTIED

_BIASES = (
    *(f"model.layers.{{bid}}.self_attn.{part}_proj.bias" for part in "qkvo"),
    *(f"model.layers.{{bid}}.mlp.{part}_proj.bias" for part in ("gate", "up", "down")),
    "model.layers.{bid}.input_layernorm.bias", "model.norm.bias",
)  # fmt: skip


def rotated(m: Metadata, a: str, c: Config) -> None:
    """Rotated dimensions of a head: all where config.json does not say."""
    share = c.get("rotary_pct")
    m.u32(f"{a}.rope.dimension_count", int((1.0 if share is None else share) * (c.hidden // max(c.n_heads, 1))))


def _nothing(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """A bias that changes nothing, as old checkpoints have them."""
    if np.any(rows[0].read(0, 1)):
        raise ValueError("runtimes add no biases, and this one is not all zeros")
    return []


FAMILY = Family(
    arch="cohere2",
    architectures=("Cohere2ForCausalLM",),
    tokenizer=BPE,
    classes={"cohere2": class_defaults(
        256000, 8192, 8192, 22528, 40, 64, None, head_dim=head_width, sliding_window=4096, **cohere.DEFAULTS,
    )},
    assumes={
        **cohere.ASSUMED, "layer_types": layers(4), "layer_switch": Assumed((4,)),
        "position_embedding_type": Assumed(("rope_gptj",)), "order_of_interleaved_layers": Assumed(("local_attn_first",)),
        "use_parallel_block": Assumed((True,)), "use_gated_activation": Assumed((True,)),
        "use_parallel_embedding": Assumed((False,)), "use_qk_norm": Assumed((False,)),
    },
    idle=("use_embedding_sharing", "rotary_pct"),
    keys=(*BASE, cohere.scales, sliding_window, vocab_size, rotated),
    drops=UNTIED,
    rules=tuple(Rule((), (name,), _nothing) for name in _BIASES),
)  # fmt: skip
