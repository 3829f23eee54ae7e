"""Llama 4, text: packed experts in every n-th layer, chunks of attention; heads need no other order."""

from __future__ import annotations

from collections.abc import Sequence

from ...kit import Transposed, split
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, rope_dimension_count, vocab_size
from ..rules import Rule
from ..tokenizers import BPE
from ._stated import numbers
from .llama import ROPE_FREQS

_EXPERTS = "model.layers.{bid}.feed_forward.experts"


def gate_and_up(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """The halves of a stored row, transposed."""
    width = rows[0].shape[-1] // 2
    return [Transposed(half) for half in split(rows[0], [width, width], 2)]


def chunks(m: Metadata, a: str, c: Config) -> None:
    """No chunks, where every layer looks at the whole context."""
    kinds = c.get("layer_types")
    if isinstance(kinds, list) and set(kinds) == {"full_attention"}:
        m.u32(f"{a}.attention.sliding_window", 0)


FAMILY = Family(
    arch="llama4",
    architectures=("Llama4ForConditionalGeneration", "Llama4ForCausalLM"),
    tokenizer=BPE,
    classes={"llama4_text": class_defaults(
        202048, 131072, 5120, 8192, 48, 40, 8, head_dim=128, rms_norm_eps=1e-5, intermediate_size_mlp=16384,
        num_experts_per_tok=1, num_local_experts=16, interleave_moe_layer_step=1, rope_parameters={
            "rope_type": "default", "rope_theta": 500000.0},
    )},
    assumes={
        **{key: value for key, value in GATED_SILU.items() if key != "layer_types"}, "attn_scale": Assumed((0.1,)),
        "floor_scale": Assumed((8192,)), "attention_bias": Assumed((False,)),
        "attention_chunk_size": Assumed((8192,), "runtimes look at chunks of 8192"),
        "use_qk_norm": Assumed(lambda _, c: (c.n_experts != 128,), "runtimes have norms of heads but with 128 experts"),
        "no_rope_layers": Assumed(lambda _, c: ([int((n + 1) % 4 > 0) for n in range(c.n_layers)], [])),
    },
    idle=("moe_layers", "no_rope_layer_interval", "layer_types", "for_llm_compressor", "attn_temperature_tuning"),
    keys=(*BASE, vocab_size, rope_dimension_count, chunks, numbers({
        "feed_forward_length": "intermediate_size_mlp", "expert_feed_forward_length": "intermediate_size",
        "interleave_moe_layer_step": "interleave_moe_layer_step",
    })),
    rules=(
        ROPE_FREQS,
        Rule(("blk.{bid}.ffn_gate_exps.weight", "blk.{bid}.ffn_up_exps.weight"), (f"{_EXPERTS}.gate_up_proj",), gate_and_up),
        Rule(("blk.{bid}.ffn_down_exps.weight",), (f"{_EXPERTS}.down_proj",), lambda rows, _: [Transposed(rows[0])]),
    ),
)  # fmt: skip
