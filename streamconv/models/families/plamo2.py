"""PLaMo 2: state spaces in every other layer or more, attention in the rest, norms around each sublayer."""

from __future__ import annotations

from ...kit import NEGATIVE_EXP, Mapped, squeezed
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import block_count, embedding_length, feed_forward_length, file_type, vocab_size
from ..names import plain_name
from ._plamo import NORMS, TOKENIZER, ids


def has_state(c: Config) -> list[bool]:
    """Which layers have a state space."""
    step, n = c.integer("mamba_step") if c.get("mamba_step") else 2, c.n_layers
    if n <= step // 2:
        return [i != n - 1 for i in range(n)]
    return [i % step != step // 2 for i in range(n)]


def sizes(m: Metadata, a: str, c: Config) -> None:
    """Heads of each layer, and sizes of state spaces; what is missing is as in the class."""

    def value(name: str, default: int) -> int:
        return c.integer(name) if c.get(name) is not None else default

    states, width, heads = has_state(c), value("hidden_size_per_head", 128), value("mamba_num_heads", 64)
    m.u32(f"{a}.context_length", value("max_position_embeddings", 2048))
    m.array(f"{a}.attention.head_count", "INT32", [0 if s else c.n_heads for s in states])
    m.array(f"{a}.attention.head_count_kv", "INT32", [0 if s else c.n_kv_heads for s in states])
    m.u32(f"{a}.attention.key_length", width)
    m.u32(f"{a}.attention.value_length", width)
    m.f32(
        f"{a}.attention.layer_norm_rms_epsilon", c.real("rms_norm_eps") if c.get("rms_norm_eps") is not None else 1e-6
    )
    m.f32(f"{a}.rope.freq_base", c.real("rope_theta") if c.get("rope_theta") is not None else 10000.0)
    m.u32(f"{a}.ssm.state_size", value("mamba_d_state", 64))
    m.u32(f"{a}.ssm.conv_kernel", value("mamba_d_conv", 4))
    m.u32(f"{a}.ssm.time_step_rank", heads)
    m.u32(f"{a}.ssm.inner_size", heads * width)
    m.u32(f"{a}.ssm.group_count", 0)


def spelled(name: str, _config: Config) -> str:
    """``name`` with the bias of time steps as one, and norms of heads as such."""
    name = plain_name(name).replace(".dt_bias", ".dt_proj.bias")
    for part in ("q", "k"):
        name = name.replace(f".mixer.{part}_weight", f".mixer.{part}.weight")
    for part in ("dt", "B", "C"):
        name = name.replace(f".mixer.{part}_norm_weight", f".mixer.{part}_norm")
    return name


FAMILY = Family(
    arch="plamo2",
    architectures=("Plamo2ForCausalLM", "PLaMo2ForCausalLM"),
    tokenizer=TOKENIZER,
    assumes={"mamba_enabled": Assumed((True,)), "hidden_act": Assumed(("silu",))},
    idle=("mamba_chunk_size", "attention_window_size", "full_attention_idx", "max_position_embeddings",
          "eval_attention_n_bit", "*_batch_*"),
    keys=(block_count, embedding_length, feed_forward_length, vocab_size, sizes, file_type),
    token_keys=(ids, lambda m, _a, _c: m.remove("tokenizer.chat_template")),
    spelled=spelled,
    names={f"model.layers.layers.{{bid}}.mixer.{part}_norm": f"blk.{{bid}}.ssm_{part.lower()}_norm" for part in ("dt", "B", "C")},
    transforms={**NORMS, "ssm_a": lambda rows, _: Mapped(rows, NEGATIVE_EXP), "ssm_conv1d": lambda rows, _: squeezed(rows)},
)  # fmt: skip
