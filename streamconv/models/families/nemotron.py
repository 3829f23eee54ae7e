"""Nemotron 3 and 4: layer norms stored as offsets from one, no gates, heads rotated in part."""

from __future__ import annotations

from ...kit import PLUS_ONE, Mapped
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config, head_width
from ..family import Family, class_defaults
from ..keys import BASE, vocab_size
from ..rules import Rule
from ..tokenizers import SPM


def keys(m: Metadata, a: str, c: Config) -> None:
    """Epsilon, rotated dimensions, and a linear scaling wherever the factor is."""
    m.f32(f"{a}.attention.layer_norm_epsilon", c.real("norm_eps", "layer_norm_eps", "layer_norm_epsilon"))
    factor = c.rope.get("partial_rotary_factor")
    m.u32(f"{a}.rope.dimension_count", int((0.5 if factor is None else factor) * c.hidden) // max(c.n_heads, 1))
    scale = c.get("factor") or c.rope.get("factor")
    m.string(f"{a}.rope.scaling.type", "linear" if scale else "none")
    if scale:
        m.f32(f"{a}.rope.scaling.factor", float(scale))


def fixed_ids(m: Metadata, _a: str, _c: Config) -> None:
    """Padding and the unknown, whatever the tokenizer says."""
    m.u32("tokenizer.ggml.padding_token_id", 0)
    m.u32("tokenizer.ggml.unknown_token_id", 1)


def norm(target: str, source: str) -> Rule:
    """A norm's weight, the offset added; its bias is only renamed."""
    return Rule((f"{target}.weight",), (f"{source}.weight",), lambda rows, _: [Mapped(rows[0], PLUS_ONE)])


FAMILY = Family(
    arch="nemotron",
    architectures=("NemotronForCausalLM",),
    tokenizer=SPM,
    classes={"nemotron": {**class_defaults(
        256000, 4096, 6144, 24576, 32, 48, None, hidden_act="relu2", head_dim=head_width, norm_eps=1e-5, partial_rotary_factor=0.5,
    ), "rms_norm_eps": None}},
    assumes={"hidden_act": Assumed(("relu2",))},
    idle=("factor",),
    keys=(*BASE, vocab_size, keys),
    token_keys=(fixed_ids,),
    rules=(
        norm("blk.{bid}.attn_norm", "model.layers.{bid}.input_layernorm"),
        norm("blk.{bid}.ffn_norm", "model.layers.{bid}.post_attention_layernorm"), norm("output_norm", "model.norm"),
    ),
)  # fmt: skip
