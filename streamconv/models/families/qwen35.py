"""Qwen 3.5, dense: gated delta networks whose values lie beside the keys they belong to, gated attention in every fourth layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...kit import NEGATIVE_EXP, Mapped, Order, cut, join, squeezed, take
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..family import class_defaults
from ..keys import BASE, rope_sections
from ..rules import Make, Rule, rename
from . import qwen3next

_LINEAR = "model.layers.{bid}.linear_attn"
_VALUES = {  # tensors with a part for each value head: in a checkpoint -> in GGUF
    "in_proj_a.weight": "ssm_alpha.weight", "in_proj_b.weight": "ssm_beta.weight", "A_log": "ssm_a", "dt_proj.bias": "ssm_dt.bias",
}  # fmt: skip


def tiled(rows: Rows, c: Config, width: int, first: int = 0, axis: int = 0) -> Rows:
    """Parts of ``width`` of the value heads: first the first of every key head, and so on; stored key head by key head."""
    n_keys, n_values = c.integer("linear_num_key_heads"), c.integer("linear_num_value_heads")
    if n_values % n_keys or rows.shape[axis] != first + n_values * width:
        raise ValueError(f"{n_values} values of {n_keys} keys end at {first + n_values * width}")
    return take(rows, Order((n_values // n_keys, n_keys, width), (width, n_values // n_keys * width, 1), first), axis)


def _mixed(rows: Rows, c: Config) -> Rows:
    """Queries and keys as they are, before the values."""
    keys = 2 * c.integer("linear_num_key_heads") * c.integer("linear_key_head_dim")
    return join([cut(rows, 0, keys), tiled(rows, c, c.integer("linear_value_head_dim"), keys)])


def _of_heads(axis: int) -> Make:
    def make(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
        return [tiled(rows[0], c, c.integer("linear_value_head_dim"), axis=axis)]

    return make


def _of_scalars(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    return [tiled(rows[0], c, 1)]


def sections(m: Metadata, a: str, c: Config) -> None:
    """Sections of multimodal RoPE, which loaders ask for in a model of texts too."""
    m.array(f"{a}.rope.dimension_sections", "INT32", [11, 11, 10, 0])
    rope_sections(m, a, c)


DELTA = {
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16,
    "linear_num_value_heads": 32, "full_attention_interval": 4, "partial_rotary_factor": 0.25,
}  # fmt: skip
FAMILY = replace(
    qwen3next.FAMILY,
    arch="qwen35",
    architectures=("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"),
    classes={"qwen3_5_text": class_defaults(248320, 32768, 4096, 12288, 32, 16, 4, head_dim=256, **DELTA)},
    assumes={
        **qwen3next.FAMILY.assumes, "attn_output_gate": Assumed((True,)), "output_gate_type": Assumed(("swish", "silu")),
        "mtp_use_dedicated_embeddings": Assumed((False,)),
    },
    keys=(*BASE, sections, qwen3next.keys),
    rules=(
        Rule(("blk.{bid}.attn_qkv.weight",), (f"{_LINEAR}.in_proj_qkv.weight",), lambda rows, c: [_mixed(rows[0], c)]),
        Rule(("blk.{bid}.attn_gate.weight",), (f"{_LINEAR}.in_proj_z.weight",), _of_heads(0)),
        Rule(("blk.{bid}.ssm_out.weight",), (f"{_LINEAR}.out_proj.weight",), _of_heads(1)),
        rename(f"{_LINEAR}.conv1d.weight", "blk.{bid}.ssm_conv1d.weight"),
        *(Rule((f"blk.{{bid}}.{name}",), (f"{_LINEAR}.{source}",), _of_scalars) for source, name in _VALUES.items()),
    ),
    transforms={
        **qwen3next.FAMILY.transforms, "ssm_conv1d": lambda rows, c: _mixed(squeezed(rows), c),
        "ssm_a": lambda rows, _: Mapped(rows, NEGATIVE_EXP),
    },
)  # fmt: skip
