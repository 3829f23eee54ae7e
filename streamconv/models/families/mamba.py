"""Mamba: state spaces instead of attention. The reference reads config.json as it stands, so absent keys have its own defaults."""

from __future__ import annotations

from ...errors import BadInput
from ...kit import NEGATIVE_EXP, Mapped, squeezed
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import HIDDEN, Config
from ..family import Family
from ..keys import block_count, embedding_length, file_type
from ..tokenizers import GPT_NEOX


def decay(rows: Rows, _config: Config) -> Rows:
    """The state matrix from its logarithm."""
    return Mapped(rows, NEGATIVE_EXP)


def convolution(rows: Rows, _config: Config) -> Rows:
    """A row of weights per channel."""
    return squeezed(rows)


def start(m: Metadata, a: str, c: Config) -> None:
    """No limit of the context."""
    m.u32(f"{a}.context_length", 2**20)


def unused(m: Metadata, a: str, c: Config) -> None:
    """Keys that loaders ask for all the same."""
    m.u32(f"{a}.feed_forward_length", 0)
    m.u32(f"{a}.attention.head_count", 0)


def state_space(m: Metadata, a: str, c: Config) -> None:
    """Sizes of the state space; runtimes know one ratio of inner to outer width."""
    hidden = c.integer(*HIDDEN)
    sizes = {
        "conv_kernel": (("conv_kernel", "d_conv"), 4),
        "inner_size": (("intermediate_size", "d_inner"), 2 * hidden),
        "state_size": (("state_size", "d_state"), 16),
        "time_step_rank": (("time_step_rank", "dt_rank"), -(-hidden // 16)),
    }
    for key, (names, default) in sizes.items():
        stated = c.get(*names)
        m.u32(f"{a}.ssm.{key}", default if stated in (None, 0, "auto") else c.integer(*names))
    inner = m.get(f"{a}.ssm.inner_size")
    if inner != 2 * hidden:
        raise BadInput(f"config.json: an inner size of {inner} is not twice {hidden}, which is all that runtimes know")


def epsilon(m: Metadata, a: str, c: Config) -> None:
    """Epsilon of norms, and whether there are some inside the state space."""
    names = "layer_norm_epsilon", "rms_norm_eps"
    m.f32(f"{a}.attention.layer_norm_rms_epsilon", c.real(*names) if c.get(*names) else 1e-5)
    m.boolean(f"{a}.ssm.dt_b_c_rms", c.get("model_type") == "falcon_mamba")


def padded(c: Config) -> int:
    """Tokens up to the next multiple that the embedding has."""
    multiple = max(1, c.integer("pad_vocab_size_multiple")) if c.get("pad_vocab_size_multiple") else 8
    return -(-c.integer("vocab_size") // multiple) * multiple


FAMILY = Family(
    arch="mamba",
    architectures=("MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM"),
    tokenizer=GPT_NEOX,
    n_tokens=padded,
    assumes={
        "hidden_act": Assumed(("silu",)), "rms_norm": Assumed((True,)),
        "mixer_rms_eps": Assumed(lambda _, c: (c.get("layer_norm_epsilon"),), "runtimes use layer_norm_epsilon in all norms"),
    },
    idle=(
        "time_step_*", "expand", "residual_in_fp32", "rescale_prenorm_residual", "fused_add_norm", "use_mambapy",
        "use_falcon_mambapy", "use_associative_scan",
    ),
    keys=(start, embedding_length, unused, block_count, state_space, epsilon, file_type),
    transforms={"ssm_a": decay, "ssm_conv1d": convolution},
)  # fmt: skip
