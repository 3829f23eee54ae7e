"""Talkie: norms without weights, gains behind each sublayer, heads that rotate backwards."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import BadInput
from ...kit import Mapped, Order, Reshaped, join, take, times
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import GATED_SILU
from ..config import Config
from ..family import Family
from ..keys import BASE
from ..names import plain_name
from ..rules import Rule, rename
from ..tokenizers import BPE
from ._stated import fixed

_BACK, _GAIN = times(-1), "lm_head_gain.w_g"
_BLOCK = "model.blocks.{bid}"
_NAMES = {
    "attn.attn_value": "attn_v", "attn.attn_resid": "attn_output", "mlp.mlp_gate": "ffn_gate", "mlp.mlp_linear": "ffn_up",
    "mlp.mlp_resid": "ffn_down", "embed_skip.a_g": "layer_output_scale",
}  # fmt: skip


def spelled(name: str, _config: Config) -> str:
    """``name`` with the ending that parameters outside of layers lack."""
    return plain_name(name).removesuffix(".weight") + ".weight"


def backwards(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Heads with their second half negated, so that they rotate as those of others."""
    n, half = rows[0].shape[0] // c.head_dim, c.head_dim // 2
    if rows[0].shape[0] != 2 * n * half:
        raise ValueError(f"{rows[0].shape[0]} rows are not heads of {c.head_dim}")
    first, second = (take(rows[0], Order((n, half), (2 * half, 1), start)) for start in (0, half))
    return [take(join([first, Mapped(second, _BACK)]), Order((n, 2, half), (half, n * half, 1)))]


def logit_scale(m: Metadata, a: str, c: Config) -> None:
    """The scale of logits, which is a tensor of the checkpoint."""
    tensors = c.checkpoint.tensors if c.checkpoint is not None else {}
    rows = next((rows for name, rows in tensors.items() if spelled(name, c) == f"{_GAIN}.weight"), None)
    if rows is not None:
        m.f32(f"{a}.logit_scale", float(rows.read(0, 1).reshape(-1)[0]))
    elif tensors:
        raise BadInput(f"{c.folder}: no tensor {_GAIN!r}", "Is this the whole checkpoint?")


FAMILY = Family(
    arch="talkie",
    named_as="llama",
    architectures=("TalkieForCausalLM",),
    tokenizer=BPE,
    assumes=GATED_SILU,
    keys=(*BASE, fixed({"attention.layer_norm_rms_epsilon": 2.0**-23}), logit_scale),
    spelled=spelled,
    drops={f"{_GAIN}.weight": "a key says it"},
    names={"model.embed": "token_embd", **{f"{_BLOCK}.{name}": f"blk.{{bid}}.{target}" for name, target in _NAMES.items()}},
    rules=(
        *(Rule((f"blk.{{bid}}.attn_{part[0]}.weight",), (f"{_BLOCK}.attn.attn_{part}.weight",), backwards)
          for part in ("query", "key")),
        rename(f"{_BLOCK}.attn_gain.a_g.weight", "blk.{bid}.attn_output.scale"),
        rename(f"{_BLOCK}.mlp_gain.a_g.weight", "blk.{bid}.ffn_down.scale"),
        Rule(("blk.{bid}.attn_q_norm.weight",), (f"{_BLOCK}.attn.head_gain.head_g.weight",),
             lambda rows, _: [Reshaped(rows[0], (*rows[0].shape, 1))]),
    ),
)  # fmt: skip
