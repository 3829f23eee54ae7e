"""RWKV 6: time mixing instead of attention, with factors that depend on the text."""

from __future__ import annotations

from ...kit import Mapped, Transposed, squeezed, times
from ...metadata import Metadata
from ..config import Config
from ..family import Family
from ..keys import block_count, embedding_length, file_type
from ..rules import Make, Rule
from ._rwkv import WORLD, fused, suffixed, world_tokens

_BLOCK = "rwkv.blocks.{bid}"
#: halvings of the outputs of a block, up to far more than any model has
_HALVINGS = range(1, 33)
_SCALED = {"attention.output": "time_mix_output", "feed_forward.value": "channel_mix_value"}


def sizes(m: Metadata, a: str, c: Config) -> None:
    """Widths, of which some follow from others."""
    wide = c.get("intermediate_size")
    large = c.hidden == 4096
    m.u32(f"{a}.context_length", 2**20)
    m.f32(f"{a}.attention.layer_norm_epsilon", c.real("layer_norm_epsilon"))
    m.u32(f"{a}.rescale_every_n_layers", c.integer("rescale_every"))
    m.u32(f"{a}.wkv.head_size", c.integer("head_size"))
    m.u32(f"{a}.time_mix_extra_dim", 64 if large else 32)
    m.u32(f"{a}.time_decay_extra_dim", 128 if large else 64)
    m.u32(
        f"{a}.feed_forward_length", int(c.hidden * 3.5) // 32 * 32 if wide is None else c.integer("intermediate_size")
    )
    m.u32(f"{a}.attention.head_count", 0)


def spelled(name: str, c: Config) -> str:
    """``name`` with a suffix; of what a block gives out, how often it is halved."""
    every = c.integer("rescale_every") if c.get("rescale_every") else 0
    parts = name.split(".")
    if every and name.startswith("rwkv.blocks.") and ".".join(parts[3:5]) in _SCALED and int(parts[2]) >= every:
        name = f"halved.{int(parts[2]) // every}.{name}"
    return suffixed(name)


def halved(n: int) -> Make:
    """Halved ``n`` times."""
    return lambda rows, _config: [Mapped(rows[0], times(0.5**n))]


FAMILY = Family(
    arch="rwkv6",
    architectures=("Rwkv6ForCausalLM",),
    tokenizer=WORLD,
    assumes={},
    idle=("attention_hidden_size", "head_size_divisor", "num_attention_heads", "use_cache", "model_version"),
    keys=(block_count, embedding_length, sizes, file_type),
    token_keys=(world_tokens,),
    spelled=spelled,
    rules=(
        fused([f"{_BLOCK}.attention.time_maa_{part}.weight" for part in "wkvrg"]),
        *(Rule((f"blk.{{bid}}.{target}.weight",), (f"halved.{n}.{_BLOCK}.{name}.weight",), halved(n))
          for n in _HALVINGS for name, target in _SCALED.items()),
    ),
    transforms={
        **{f"time_mix_{part}": lambda rows, _: Transposed(rows) for part in ("w1", "w2", "decay_w1", "decay_w2")},
        "time_mix_decay": lambda rows, _: squeezed(rows), "*_mix_lerp_[!f]*": lambda rows, _: squeezed(rows),
    },
)  # fmt: skip
