"""Granite Switch: Granite, dense, with adapters that special tokens turn on; the first of the stacked adapters changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...errors import BadInput
from ...kit import Reshaped, Zeros, interleaved, join, split, take
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..rules import Make, Rule, halves, rename
from . import granite, granitemoe
from ._stated import numbers

_IDS = {"activate": "adapter_token_ids", "substitute": "adapter_substitute_token_ids"}


def adapters(m: Metadata, a: str, c: Config) -> None:
    """Blocks without the one of the switch, which has no weights; the tokens that turn adapters on."""
    m.u32(f"{a}.block_count", c.n_layers - 1)
    if not c.n_experts:
        m.u32(f"{a}.expert_used_count", 0)
    for key, name in _IDS.items():
        ids = c.get(name)
        if not isinstance(ids, list) or len(ids) != c.integer("num_adapters"):
            raise BadInput(
                f"{c.place}: {name!r} is {ids!r}, not a token for each adapter", "Take it from the model's page."
            )
        m.array(f"{a}.adapters.token_ids_{key}", "INT32", ids)
    gain = "control_token_gain"
    m.f32(f"{a}.adapters.router_gain", 15.0 if c.get(gain) is None else c.real(gain))


def fused(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Queries, keys and values, the heads of the first two with adjacent rotary pairs."""
    sizes = c.n_heads, c.n_kv_heads, c.n_kv_heads
    width = c.integer("projection_head_dim") if c.get("projection_head_dim") else c.head_dim
    q, k, v = split(rows[0], [width * n for n in sizes])
    return [join([take(q, interleaved(q.shape[0], c.n_heads)), take(k, interleaved(k.shape[0], c.n_kv_heads)), v])]


def stacked(heads: int = 0) -> Make:
    """All adapters behind one of zeros; their outputs turned as ``fused`` turns those of the ``heads``-th kind of heads."""

    def make(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
        n, one, *shape = rows[0].shape
        found: Rows = Reshaped(rows[0], (n * one, *shape))
        if heads:
            found = take(found, interleaved(shape[0], c.n_heads if heads == 1 else c.n_kv_heads), 1)
        return [join([Zeros((1, *shape), found.dtype), found])]

    return make


_ATTENTION, _MLP = "model.layers.{bid}.self_attn", "model.layers.{bid}.shared_mlp"
#: module -> its parts
_PARTS = {f"{_ATTENTION}.qkv_proj": ("attn_q", "attn_k", "attn_v"), f"{_MLP}.input_linear": ("ffn_gate", "ffn_up")}
_WHOLE = {f"{_ATTENTION}.o_proj": "attn_output", f"{_MLP}.output_linear": "ffn_down"}
FAMILY = replace(
    granitemoe.FAMILY,
    arch="graniteswitch",
    named_as="granite",
    architectures=("GraniteSwitchForCausalLM",),
    classes={},
    assumes={**granite.FAMILY.assumes, "num_local_experts": Assumed((0,))},
    idle=("projection_head_dim", "adapter_names", "adapter_*", "control_*"),
    keys=(*granitemoe.FAMILY.keys, adapters, numbers({"adapters.count": "num_adapters", "adapters.lora_rank": "max_lora_rank"})),
    drops={
        **dict.fromkeys(("model.switch.*", "switch.*", "*adapter_token_ids", "*control_to_substitute_lut"), "keys say it"),
        "lm_head.weight": "runtimes use the embedding as output",
    },
    rules=(
        Rule(("blk.{bid}.attn_qkv.weight",), (f"{_ATTENTION}.qkv_proj.base_layer.weight",), fused),
        Rule(("blk.{bid}.ffn_gate.weight", "blk.{bid}.ffn_up.weight"), (f"{_MLP}.input_linear.base_layer.weight",), halves),
        *(rename(f"{module}.base_layer.weight", f"blk.{{bid}}.{name}.weight") for module, name in _WHOLE.items()),
        *(Rule((f"blk.{{bid}}.{name}.lora_{side.lower()}",), (f"{module}.lora_{side}",), stacked())
          for module, name in _WHOLE.items() for side in "AB"),
        *(Rule((f"blk.{{bid}}.{name}.lora_{side.lower()}",), (f"{module}.lora_{side}_slices.{n}",),
               stacked(n + 1 if side == "B" and name in ("attn_q", "attn_k") else 0))
          for module, names in _PARTS.items() for side in "AB" for n, name in enumerate(names)),
    ),
)  # fmt: skip
