"""gpt-oss: experts with biases, their weights in MXFP4 that is copied unchanged; attention sinks; windows in every other layer."""

from __future__ import annotations

from collections.abc import Sequence

from ...kit import Transposed, every
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import GATED_SILU, Assumed, layers
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, sliding_window
from ..rules import Rule, rename
from ..tokenizers import BPE

_EXPERTS = "model.layers.{bid}.mlp.experts"
_DOWN, _GATE, _UP = (f"blk.{{bid}}.ffn_{part}_exps" for part in ("down", "gate", "up"))
_KINDS = ("weight", "bias")


def alternating(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Gate and up, whose rows alternate; of biases the columns."""
    return [every(rows[0], 2, first, axis=1) for first in (0, 1)]


def transposed(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Down, which is stored with inputs for rows where it is not quantized."""
    return [Transposed(rows[0])]


def turned_alternating(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Gate and up, likewise."""
    return [Transposed(every(rows[0], 2, first, axis=2)) for first in (0, 1)]


def expert_feed_forward_length(m: Metadata, a: str, c: Config) -> None:
    """Width of the feed-forward network of an expert."""
    m.u32(f"{a}.expert_feed_forward_length", c.integer("intermediate_size"))


FAMILY = Family(
    arch="gpt-oss",
    architectures=("GptOssForCausalLM",),
    tokenizer=BPE,
    classes={"gpt_oss": class_defaults(
        201088, 131072, 2880, 2880, 36, 64, 8, head_dim=64, rms_norm_eps=1e-5, num_local_experts=128,
        num_experts_per_tok=4, sliding_window=128, rope_parameters={
            "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
            "original_max_position_embeddings": 4096, "rope_theta": 150000.0},
    )},
    assumes={
        **{key: GATED_SILU[key] for key in ("hidden_act", "partial_rotary_factor", "rope_type")},
        "swiglu_alpha": Assumed((1.702,)), "swiglu_limit": Assumed((7.0,)), "layer_types": layers(2),
    },
    idle=("initial_context_length", "experts_per_token"),
    keys=(*BASE, sliding_window, expert_feed_forward_length),
    kept=("MXFP4",),
    rules=(
        rename(f"{_EXPERTS}.down_proj:MXFP4", f"{_DOWN}.weight"),
        Rule((f"{_GATE}.weight", f"{_UP}.weight"), (f"{_EXPERTS}.gate_up_proj:MXFP4",), alternating),
        Rule((f"{_DOWN}.weight",), (f"{_EXPERTS}.down_proj",), transposed),
        Rule((f"{_GATE}.weight", f"{_UP}.weight"), (f"{_EXPERTS}.gate_up_proj",), turned_alternating),
        rename(f"{_EXPERTS}.down_proj_bias", f"{_DOWN}.bias"),
        Rule((f"{_GATE}.bias", f"{_UP}.bias"), (f"{_EXPERTS}.gate_up_proj_bias",), alternating),
        rename("model.layers.{bid}.self_attn.sinks", "blk.{bid}.attn_sinks.weight"),
        # experts as linear layers of their own, which adapters and other four-bit floats need
        *(rename(f"{_EXPERTS}.down_projs.{{x}}.{kind}", f"{_DOWN}.{kind}") for kind in _KINDS),
        *(
            Rule((f"{_GATE}.{kind}", f"{_UP}.{kind}"), (f"{_EXPERTS}.gate_up_projs.{{x}}.{kind}",), alternating)
            for kind in _KINDS
        ),
        *(rename(f"model.layers.{{bid}}.mlp.router.linear.{kind}", f"blk.{{bid}}.ffn_gate_inp.{kind}") for kind in _KINDS),
    ),
)  # fmt: skip
