"""Falcon H1: attention and a state space side by side in every layer; what multiplies activations is folded into weights."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import BadInput
from ...kit import Mapped, join, split, times
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family, Transform
from ..keys import BASE, vocab_size
from ..tokenizers import BPE
from . import _mamba2
from ._stated import numbers


def inner(c: Config) -> int:
    """Width of the state space."""
    return c.integer("mamba_d_ssm") if c.get("mamba_d_ssm") else c.integer("mamba_expand") * c.hidden


def listed(c: Config, name: str, n: int) -> list[float]:
    """A list of ``n`` numbers, all one where there is none."""
    found = c.get(name)
    if found is None:
        return [1.0] * n
    if not isinstance(found, list) or len(found) != n or not all(type(x) in (int, float) for x in found):
        raise BadInput(f"{c.place}: {name!r} is not {n} numbers")
    return [float(x) for x in found]


def by(factor: Callable[[Config], float]) -> Transform:
    """Everything times a number."""
    return lambda rows, c: Mapped(rows, times(factor(c)))


def one(*names: str) -> Transform:
    """Everything times numbers of config.json, one after the other."""

    def transform(rows: Rows, c: Config) -> Rows:
        factor = 1.0
        for name in names:
            factor *= c.real(name) if c.get(name) is not None else 1.0
        return Mapped(rows, times(factor))

    return transform


def projections(rows: Rows, c: Config) -> Rows:
    """What goes into the state space: gates, inputs, both groups' matrices and time steps, each by a number of its own."""
    states = c.integer("mamba_n_groups") * c.integer("mamba_d_state")
    blocks = split(rows, [inner(c), inner(c), states, states, c.integer("mamba_n_heads")])
    whole = times(c.real("ssm_in_multiplier") if c.get("ssm_in_multiplier") is not None else 1.0)
    factors = listed(c, "ssm_multipliers", 5)
    return join([Mapped(Mapped(block, whole), times(f)) for block, f in zip(blocks, factors, strict=True)])


def keys(m: Metadata, a: str, c: Config) -> None:
    """Sizes of the state space."""
    m.u32(f"{a}.ssm.inner_size", inner(c))
    heads = c.integer("mamba_n_heads")
    m.u32(f"{a}.ssm.time_step_rank", inner(c) // c.integer("mamba_d_head") if c.get("mamba_d_head") else heads)


FAMILY = Family(
    arch="falcon-h1",
    architectures=("FalconH1ForCausalLM",),
    tokenizer=BPE,
    assumes={
        **GATED_SILU, "mamba_norm_before_gate": Assumed((True, False)), "attention_bias": Assumed((False,)),
        "mamba_proj_bias": Assumed((False,)), "mlp_bias": Assumed((False,)),
    },
    idle=("mamba_*", "*_multiplier", "num_logits_to_keep", "attn_layer_indices", "time_step_*"),
    keys=(*BASE, vocab_size, keys, numbers({
        "ssm.conv_kernel": "mamba_d_conv", "ssm.state_size": "mamba_d_state", "ssm.group_count": "mamba_n_groups",
    })),
    spelled=_mamba2.spelled,
    names={"model.layers.{bid}.pre_ff_layernorm.weight": "blk.{bid}.ffn_norm", "model.final_layernorm": "output_norm"},
    transforms={
        **_mamba2.parts(lambda c: c.integer("mamba_n_groups")),
        "ffn_gate": by(lambda c: listed(c, "mlp_multipliers", 2)[0]), "ffn_down": by(lambda c: listed(c, "mlp_multipliers", 2)[1]),
        "attn_k": one("key_multiplier", "attention_in_multiplier"), "attn_[qv]": one("attention_in_multiplier"),
        "attn_output": one("attention_out_multiplier"), "ssm_out": one("ssm_out_multiplier"), "ssm_in": projections,
        "output": one("lm_head_multiplier"), "token_embd": one("embedding_multiplier"),
    },
)  # fmt: skip
