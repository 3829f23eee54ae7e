"""Qwen 3 Next: gated delta networks in three of four layers, gated attention in the others, blocks that predict further tokens.

Published checkpoints store norms as offsets from one; MLX adds the one when it saves, and puts the channels of convolutions last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...kit import NEGATIVE_EXP, Mapped, Order, join, squeezed, take
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import EVERY_LAYER_SPARSE, GATED_SILU, Assumed, scaled_to_one
from ..config import Config
from ..family import class_defaults
from ..names import plain_name
from ..rules import Rule
from . import qwen2moe
from .gemma import plus_one

_QKVZ = "model.layers.{bid}.linear_attn.in_proj_qkvz.weight"
_PREDICTS = {
    "fc": "eh_proj", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm", "norm": "shared_head_norm",
}  # fmt: skip


def further(c: Config) -> range:
    """Blocks that predict further tokens: as many as the checkpoint has, since transformers saves none of them."""
    count = c.integer("mtp_num_hidden_layers") if c.get("mtp_num_hidden_layers") else 0
    if c.checkpoint is not None and c.checkpoint.tensors:
        names = (plain_name(name.replace("model.mtp.", "mtp.")) for name in c.checkpoint.tensors if "mtp." in name)
        count = len({name.split(".")[2] for name in names if name.startswith("mtp.layers.")})
    return range(c.n_layers, c.n_layers + count)


def norm(rows: Rows, c: Config) -> Rows:
    """Norm weights as the runtime multiplies by them."""
    tensors = c.checkpoint.tensors if c.checkpoint is not None else {}
    convolution = next((found.shape for name, found in tensors.items() if name.endswith(".conv1d.weight")), ())
    return rows if len(convolution) == 3 and convolution[2] == 1 != convolution[1] else plus_one(rows, c)


def spelled(name: str, c: Config) -> str:
    """``name`` with the blocks that predict further tokens behind the others."""
    name = plain_name(name.replace("model.mtp.", "mtp.")).replace(".dt_bias", ".dt_proj.bias")
    kind, _, rest = name.partition(".")
    number, _, tail = rest.removeprefix("layers.").partition(".")
    if kind != "mtp":
        return name
    return (
        f"model.layers.{c.n_layers + int(number)}.{tail}" if number.isdecimal() else f"model.layers.{c.n_layers}.{rest}"
    )


def separate(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Queries, keys and values of all heads one behind the other, and the gates; stored head by head."""
    n_keys, key = c.integer("linear_num_key_heads"), c.integer("linear_key_head_dim")
    value = c.integer("linear_num_value_heads") // n_keys * c.integer("linear_value_head_dim")
    sizes, head = (key, key, value, value), 2 * (key + value)
    if rows[0].shape[0] != n_keys * sum(sizes):
        raise ValueError(f"{n_keys} heads have {n_keys * sum(sizes)} rows")
    parts = [take(rows[0], Order((n_keys, n), (head, 1), sum(sizes[:i]))) for i, n in enumerate(sizes)]
    return [join(parts[:3]), parts[3]]


def keys(m: Metadata, a: str, c: Config) -> None:
    """All blocks, and what the layers are made of."""
    more = 0 if c.further == "left out" else len(further(c))
    m.u32(f"{a}.block_count", c.n_layers + more)
    if more:
        m.u32(f"{a}.nextn_predict_layers", more)
    delta(m, a, c, more)


def delta(m: Metadata, a: str, c: Config, more: int = 0) -> None:
    """Sizes of the delta networks, and which layers have them; the ``more`` blocks behind the last have none."""
    m.u32(f"{a}.ssm.conv_kernel", c.integer("linear_conv_kernel_dim"))
    m.u32(f"{a}.ssm.state_size", c.integer("linear_key_head_dim"))
    m.u32(f"{a}.ssm.group_count", c.integer("linear_num_key_heads"))
    m.u32(f"{a}.ssm.time_step_rank", c.integer("linear_num_value_heads"))
    m.u32(f"{a}.ssm.inner_size", c.integer("linear_value_head_dim") * c.integer("linear_num_value_heads"))
    every = c.integer("full_attention_interval") if c.get("full_attention_interval") is not None else 4
    kinds = c.layer_types or ["" if (n + 1) % every == 0 else "linear_attention" for n in range(c.n_layers)]
    m.array(f"{a}.attention.recurrent_layers", "BOOL", [k == "linear_attention" for k in kinds] + [False] * more)
    m.u32(f"{a}.full_attention_interval", every)
    share = c.rope.get("partial_rotary_factor") or 0.25
    m.u32(f"{a}.rope.dimension_count", int(c.head_dim * share))


FAMILY = replace(
    qwen2moe.FAMILY,
    arch="qwen3next",
    architectures=("Qwen3NextForCausalLM",),
    classes={"qwen3_next": class_defaults(
        151936, 32768, 2048, 5632, 48, 16, 2, head_dim=256, num_experts=512, num_experts_per_tok=10,
        moe_intermediate_size=512, shared_expert_intermediate_size=512, linear_conv_kernel_dim=4,
        linear_key_head_dim=128, linear_value_head_dim=128, linear_num_key_heads=16, linear_num_value_heads=32,
        full_attention_interval=4, norm_topk_prob=True, partial_rotary_factor=0.25,
    )},
    assumes={
        **{key: GATED_SILU[key] for key in ("hidden_act", "rope_type", "truncate")}, **EVERY_LAYER_SPARSE, **scaled_to_one(True),
        "mtp_num_hidden_layers": Assumed(lambda _, c: (len(further(c)),), "the output has those blocks that the checkpoint has"),
    },
    further=further,
    keys=(*qwen2moe.FAMILY.keys, keys),
    spelled=spelled,
    names={f"model.layers.{{bid}}.{name}": f"blk.{{bid}}.nextn.{target}" for name, target in _PREDICTS.items()},
    rules=(*qwen2moe.FAMILY.rules, Rule(("blk.{bid}.attn_qkv.weight", "blk.{bid}.attn_gate.weight"), (_QKVZ,), separate)),
    transforms={
        "ssm_norm": lambda rows, _: rows, "*norm": norm, "ssm_a": lambda rows, _: Mapped(rows, NEGATIVE_EXP),
        "ssm_conv1d": lambda rows, _: squeezed(rows),
    },
)  # fmt: skip
