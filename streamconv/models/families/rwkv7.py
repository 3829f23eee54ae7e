"""RWKV 7: time mixing whose state is corrected by what it holds; two spellings of its checkpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...kit import Reshaped, Transposed, squeezed
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..family import Family
from ..keys import block_count, embedding_length, file_type
from ..names import plain_name
from ..rules import Rule
from ._rwkv import WORLD, fused, repeated, suffixed, world_tokens

_BLOCK = "model.layers.{bid}.attention"
_SPELLINGS = (
    ("blocks.", "layers."), (".ffn.", ".feed_forward."), (".self_attn.", ".attention."), (".attn.", ".attention."),
    (".time_mixer.", "."), (".feed_forward_norm.", ".ln2."), (".ffn_norm.", ".ln2."), (".g_norm.", ".ln_x."),
    (".attn_norm.", ".ln1."),
)  # fmt: skip
_LORA = re.compile(r"\.(\w)_lora\.lora\.([02])\.(weight|bias)$")
#: rank: names of its key, power of the width and factor that it follows from otherwise
_RANKS = {
    "decay": (("lora_rank_decay", "decay_low_rank_dim"), 0.5, 1.8), "iclr": (("lora_rank_iclr", "a_low_rank_dim"), 0.5, 1.8),
    "value_residual_mix": (("lora_rank_value_residual_mix", "v_low_rank_dim"), 0.5, 1.3),
    "gate": (("lora_rank_gate", "gate_low_rank_dim"), 0.8, 0.6),
}  # fmt: skip


def spelled(name: str, c: Config) -> str:
    """``name`` as the first spelling has it; matrices that need not be transposed are marked."""
    name = plain_name(name)
    for old, new in _SPELLINGS:
        name = name.replace(old, new)
    if found := _LORA.search(name):
        letter, place, part = found.groups()
        number = "0" if part == "bias" else {"0": "1", "2": "2"}[place]
        name = f"{name[: found.start()]}.{letter}{number}{'' if part == 'bias' else '_turned'}"
    return ("first." if re.search(r"\.layers\.0\.attention\.v[012]$", name.removesuffix("_turned")) else "") + suffixed(
        name
    )


def sizes(m: Metadata, a: str, c: Config) -> None:
    """Widths, of which some follow from others."""
    m.u32(f"{a}.context_length", 2**20)
    m.f32(f"{a}.attention.layer_norm_epsilon", c.real("layer_norm_epsilon", "norm_eps"))
    m.u32(f"{a}.wkv.head_size", c.integer("head_size", "head_dim"))
    for key, (names, power, factor) in _RANKS.items():
        own = max(1, round(c.hidden**power * factor / 32)) * 32
        m.u32(f"{a}.attention.{key}_lora_rank", own if c.get(*names) is None else c.integer(*names))
    wide = c.get("intermediate_size")
    m.u32(f"{a}.feed_forward_length", 4 * c.hidden if wide is None else c.integer("intermediate_size"))
    m.u32(f"{a}.attention.head_count", 0)


def flat(rows: Rows, _config: Config) -> Rows:
    """A vector of all its numbers."""
    return Reshaped(rows, (rows.shape[0] * rows.shape[-1],)) if len(rows.shape) == 2 else squeezed(rows)


def _turned(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    return [Transposed(rows[0])]


def _vectors(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    return [squeezed(rows[0])] * 2


def low_rank() -> list[Rule]:
    """Pairs of narrow matrices; the first block's values have those of its learning rates."""
    rules = []
    for letter in "wavg":
        for n in "12":
            source, target = f"{_BLOCK}.{letter}{n}", f"blk.{{bid}}.time_mix_{letter}{n}.weight"
            extra: dict[str, Any] = {"when": lambda _c, b: b > 0} if letter == "a" else {}
            rules += [
                Rule((target,), (f"{source}.weight",), _turned, **extra), Rule((target,), (f"{source}_turned.weight",), **extra),
            ]  # fmt: skip
            if letter == "a":
                both = (f"blk.{{bid}}.time_mix_v{n}.weight", target)
                rules += [
                    Rule(both, (f"{source}.weight",), lambda rows, _c: [Transposed(rows[0])] * 2, lambda _c, b: b == 0),
                    Rule(both, (f"{source}_turned.weight",), repeated(*both), lambda _c, b: b == 0),
                ]
    both = ("blk.{bid}.time_mix_v0.weight", "blk.{bid}.time_mix_a0.weight")
    return [*rules, Rule(both, (f"{_BLOCK}.a0.weight",), _vectors, lambda _c, b: b == 0)]


MIXED = ("r", "w", "k", "v", "a", "g")
FAMILY = Family(
    arch="rwkv7",
    architectures=("Rwkv7ForCausalLM", "RWKV7ForCausalLM"),
    tokenizer=WORLD,
    assumes={},
    idle=("attn", "attn_mode", "fuse_*", "hidden_act", "hidden_ratio", "max_position_embeddings", "norm_*", "num_heads",
          "value_dim", "use_l2warp", "head_size_divisor", "num_attention_heads", "rope_parameters.*"),
    keys=(block_count, embedding_length, sizes, file_type),
    token_keys=(world_tokens,),
    spelled=spelled,
    drops={"first.*": "no runtime looks at values of the first block"},
    names={f"{_BLOCK}.x_x": "blk.{bid}.time_mix_lerp_fused"},
    rules=(fused([f"{_BLOCK}.x_{part}.weight" for part in MIXED]), *low_rank()),
    transforms={
        "time_mix_r_k": flat, "time_mix_[wavk]0": lambda rows, _: squeezed(rows), "time_mix_k_*": lambda rows, _: squeezed(rows),
        "channel_mix_lerp_*": lambda rows, _: squeezed(rows),
    },
)  # fmt: skip
