"""OpenELM: as many heads and as wide a network as each layer has; published without a vocabulary, which is Llama 2's."""

from __future__ import annotations

from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import block_count, embedding_length, file_type
from ..rules import Rule, halves
from ..tokenizers import LLAMA_2
from ._stated import fixed, numbers, reals


def of_layers(c: Config, key: str, kind: type | tuple[type, ...] = int) -> list[Any]:
    """The list ``key`` with a number for every layer (BadInput: it is another)."""
    found = c.get(key)
    numbers = isinstance(found, list) and all(isinstance(n, kind) and not isinstance(n, bool) for n in found)
    if not numbers or len(found) != c.n_layers:
        raise BadInput(f"{c.place}: {key!r} is not a list of {c.n_layers} numbers, one for every layer")
    return list(found)


def heads(m: Metadata, a: str, c: Config) -> None:
    """Width of the network and heads of each layer, and the width of a head."""
    divisor, width = c.integer("ffn_dim_divisor"), c.hidden
    m.array(
        f"{a}.feed_forward_length",
        "INT32",
        [_rounded(n * width, divisor) for n in of_layers(c, "ffn_multipliers", (int, float))],
    )
    m.array(f"{a}.attention.head_count", "INT32", of_layers(c, "num_query_heads"))
    m.array(f"{a}.attention.head_count_kv", "INT32", of_layers(c, "num_kv_heads"))


def _rounded(value: float, divisor: int) -> int:
    """The nearest multiple, the next one where that takes more than a tenth away."""
    nearest = max(divisor, int(value + divisor / 2) // max(divisor, 1) * divisor)
    return nearest + divisor if nearest < 0.9 * value else nearest


FAMILY = Family(
    arch="openelm",
    architectures=("OpenELMForCausalLM",),
    tokenizer=LLAMA_2,
    assumes={
        "activation_fn_name": Assumed(("swish", "silu")), "normalization_layer_name": Assumed(("rms_norm",)),
        **{key: Assumed((True,)) for key in ("ffn_with_glu", "normalize_qk_projections", "share_input_output_layers")},
    },
    idle=("num_gqa_groups", "qkv_multipliers", "rope_max_length"),
    keys=(
        block_count, numbers({"context_length": "max_context_length"}), embedding_length, heads,
        reals({"rope.freq_base": "rope_freq_constant"}), fixed({"attention.layer_norm_rms_epsilon": 1e-6}),
        *(numbers({key: "head_dim"}) for key in ("rope.dimension_count", "attention.key_length", "attention.value_length")),
        file_type,
    ),
    rules=(Rule(
        ("blk.{bid}.ffn_gate.weight", "blk.{bid}.ffn_up.weight"), ("transformer.layers.{bid}.ffn.proj_1.weight",), halves,
    ),),
)  # fmt: skip
