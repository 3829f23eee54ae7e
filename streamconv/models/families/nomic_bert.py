"""Nomic's embedders: BERT with rotated heads and gates, or with experts in every other block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...errors import BadInput
from ...kit import Reshaped, Transposed
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..rules import Rule
from ..tokenizers import XLMR
from . import bert
from ._encoder import padding, token_types
from ._stated import numbers

_LENGTHS = {(8192, 2048): 2048, (2048, 2048): 512}
_EXPERTS = "encoder.layers.{bid}.mlp.experts.mlp"


def length(m: Metadata, a: str, c: Config) -> None:
    """The context that it was trained with, which the class stretches."""
    stated = c.integer("n_positions"), c.integer("max_trained_positions") if c.get("max_trained_positions") else 2048
    if stated not in _LENGTHS:
        raise BadInput(
            f"config.json: n_positions and max_trained_positions {stated} are of no model that runtimes know"
        )
    m.u32(f"{a}.context_length", _LENGTHS[stated])
    if c.raw_value("max_position_embeddings") is not None:
        m.u32(f"{a}.context_length", c.integer("max_position_embeddings") - padding(c))


def by_expert(rows: Rows, c: Config) -> Rows:
    """A matrix for each expert."""
    return Reshaped(rows, (c.n_experts, c.integer("n_inner"), c.hidden))


def down(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """The matrices that lead back, which are stored the other way round."""
    return [Transposed(by_expert(rows[0], c))]


def meant(family: Family, c: Config) -> Family:
    """What its blocks and its tokenizer are."""
    if c.get("moe_every_n_layers"):
        family = replace(
            family, arch="nomic-bert-moe", assumes={**family.assumes, "activation_function": Assumed(("gelu",))}
        )
    pieces = (c.side("tokenizer.json") or {}).get("model")
    if isinstance(pieces, dict) and pieces.get("type") == "Unigram":
        return replace(family, tokenizer=XLMR, token_keys=(token_types,))
    return family


FAMILY = replace(
    bert.FAMILY,
    arch="nomic-bert",
    architectures=("NomicBertModel",),
    classes={},
    misfits=(),
    variant=meant,
    assumes={
        "activation_function": Assumed(("swiglu",)), "causal": Assumed((False,)), "prenorm": Assumed((False,)),
        "rotary_emb_fraction": Assumed((1.0,)), "rotary_emb_interleaved": Assumed((False,)),
        "rotary_emb_scale_base": Assumed(()), "use_rms_norm": Assumed((False,)), "parallel_block": Assumed((False,)),
        "expert_choice_router": Assumed((False,)), "num_shared_experts": Assumed((0,)),
        "moe_normalize_expert_weights": Assumed((False,), "runtimes do not scale the weights of a token's experts"),
    },
    idle=(*bert.FAMILY.idle, "summary_*", "pad_vocab_size_multiple", "ffn_div", "moe_impl", "fused_*", "use_*"),
    keys=(*bert.FAMILY.keys, length, numbers({
        "moe_every_n_layers": "moe_every_n_layers", "expert_used_count": "moe_top_k", "expert_count": "num_experts",
    })),
    drops={**bert.FAMILY.drops, "*.mlp.experts.bias": "no runtime reads it"},
    rules=(
        Rule(("blk.{bid}.ffn_up_exps.weight",), (f"{_EXPERTS}.w1",), lambda rows, c: [by_expert(rows[0], c)]),
        Rule(("blk.{bid}.ffn_down_exps.weight",), (f"{_EXPERTS}.w2",), down),
    ),
)  # fmt: skip
