"""Mamba 2: state spaces with heads; read as config.json stands."""

from __future__ import annotations

from dataclasses import replace

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import HIDDEN, Config
from ..keys import block_count, embedding_length, file_type
from ..tokenizers import GPT_NEOX_OR_PIECES
from . import _mamba2, mamba


def value(c: Config, default: int, *names: str) -> int:
    """A whole number, of which nought and null are as if it was not there."""
    return c.integer(*names) if c.get(*names) not in (None, 0) else default


def state_space(m: Metadata, a: str, c: Config) -> None:
    """Sizes of the state space."""
    hidden = c.integer(*HIDDEN)
    width = value(c, 2, "expand") * hidden
    inner = value(c, width, "intermediate_size", "d_inner")
    if inner != width:
        raise BadInput(
            f"config.json: an inner size of {inner} is not {width}, as expand says, which is all that runtimes know"
        )
    m.u32(f"{a}.ssm.conv_kernel", value(c, 4, "conv_kernel", "d_conv"))
    m.u32(f"{a}.ssm.inner_size", inner)
    m.u32(f"{a}.ssm.state_size", value(c, 128, "state_size", "d_state"))
    m.u32(f"{a}.ssm.time_step_rank", inner // value(c, 64, "mamba_d_head", "head_dim"))
    m.u32(f"{a}.ssm.group_count", value(c, 1, "n_groups"))
    names = "layer_norm_epsilon", "rms_norm_eps"
    m.f32(f"{a}.attention.layer_norm_rms_epsilon", c.real(*names) if c.get(*names) else 1e-5)


def padded(c: Config) -> int:
    """Tokens up to the next multiple that the embedding has."""
    multiple = max(1, c.integer("pad_vocab_size_multiple")) if c.get("pad_vocab_size_multiple") else 16
    return -(-c.integer("vocab_size") // multiple) * multiple


def spelled(name: str, c: Config) -> str:
    """``name`` without the class around the model."""
    return _mamba2.spelled(
        name.removeprefix("model.") if name.startswith(("model.backbone", "model.lm_head")) else name, c
    )


FAMILY = replace(
    mamba.FAMILY,
    arch="mamba2",
    architectures=("Mamba2ForCausalLM",),
    tokenizer=GPT_NEOX_OR_PIECES,
    n_tokens=padded,
    assumes={"hidden_act": Assumed(("silu",)), "rms_norm": Assumed((True,))},
    idle=(
        *mamba.FAMILY.idle,
        "norm_before_gate",
        "chunk_size",
        "norm_before_gate",
        "num_heads",
        "ssm_cfg",
        "attn_*",
        "d_intermediate",
        "time_step_rank",
        "is_mlp",
    ),
    keys=(mamba.start, embedding_length, mamba.unused, block_count, state_space, file_type),
    spelled=spelled,
    transforms=_mamba2.parts(lambda c: value(c, 1, "n_groups")),
)
