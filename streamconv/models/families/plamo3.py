"""PLaMo 3: fused projections, norms around each sublayer and on heads, a window in most layers."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, vocab_size
from ._plamo import NORMS, TOKENIZER, ids, one
from ._stated import numbers, reals


def stretched(m: Metadata, a: str, c: Config) -> None:
    """Yarn, which is said beside the others."""
    factor = c.get("rope_scaling_factor")
    if factor not in (None, 1):
        m.string(f"{a}.rope.scaling.type", "yarn")
        m.f32(f"{a}.rope.scaling.factor", c.real("rope_scaling_factor"))
        m.u32(f"{a}.rope.scaling.original_context_length", c.integer("initial_context_length"))
        m.f32(f"{a}.rope.scaling.yarn_beta_fast", 32.0)
        m.f32(f"{a}.rope.scaling.yarn_beta_slow", 1.0)


FAMILY = Family(
    arch="plamo3",
    architectures=("Plamo3ForCausalLM", "PLaMo3ForCausalLM"),
    tokenizer=TOKENIZER,
    assumes={"linear_type": Assumed(("normal",)), "hidden_act": Assumed(("silu",))},
    idle=("sliding_window", "initial_context_length", "interleaved_sliding_window"),
    keys=(*BASE, vocab_size, stretched, numbers({
        "attention.sliding_window": ("window_size", "sliding_window"), "attention.sliding_window_pattern": "sliding_window_pattern",
    }), reals({"rope.freq_base_swa": "rope_local_theta"})),
    token_keys=(ids,),
    transforms={**NORMS, "attn_[qk]_norm": one},
)  # fmt: skip
