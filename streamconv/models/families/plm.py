"""PLM: latent attention that runtimes take apart themselves, a network without gates."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, vocab_size
from ..tokenizers import QWEN


def latent(m: Metadata, a: str, c: Config) -> None:
    """Widths of heads and of what is latent."""
    rotated = c.integer("qk_rope_head_dim")
    m.u32(f"{a}.attention.kv_lora_rank", c.integer("kv_lora_rank"))
    m.u32(f"{a}.attention.key_length", c.integer("qk_nope_head_dim") + rotated)
    m.u32(f"{a}.attention.value_length", c.integer("v_head_dim"))
    m.u32(f"{a}.rope.dimension_count", rotated)


FAMILY = Family(
    arch="plm",
    architectures=("PLMForCausalLM",),
    tokenizer=QWEN,
    assumes={"hidden_act": Assumed(("relu2",)), "q_lora_rank": Assumed(())},
    keys=(*BASE, vocab_size, latent),
)
