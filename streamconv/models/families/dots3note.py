"""dots.note 3, text: latent attention of two geometries, with windows or with an indexer; gates of heads; a further block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ...errors import BadInput
from ...kit import Mapped, times
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..keys import key_value_length
from ..names import plain_name
from ..rules import Make, Rule
from ..tokenizers import BPE
from . import deepseek2
from ._glm import tokens_by_text
from ._layers import kinds
from ._mla import KV_B, separate
from ._nextn import NEXTN_NAMES
from ._stated import numbers, reals
from .deepseek32 import INDEXER

_END = "<|endofassistant|>"
_FURTHER, _SELF = "model.mtp.embed_tokens.weight", "model.layers.{bid}.self_attn"


def further(c: Config) -> range:
    """Blocks that predict further tokens, of which there is one at most, known by an embedding of its own."""
    return range(c.n_layers, c.n_layers + int(c.checkpoint is not None and _FURTHER in c.checkpoint.tensors))


def has_window(c: Config, block: int) -> bool:
    """Whether a block has a window, as the further one has."""
    return block >= c.n_layers or kinds(c, 1)[block] == "sliding_attention"


def has_none(c: Config, block: int) -> bool:
    """The opposite."""
    return not has_window(c, block)


def layers(m: Metadata, a: str, c: Config) -> None:
    """Sizes of attention with windows, and which layers have it."""
    windows = [has_window(c, n) for n in range(c.n_layers)]
    more = 0 if c.further == "left out" else len(further(c))
    blocks = windows + [True] * more
    heads = [c.integer("swa_num_attention_heads") if window else c.n_heads for window in blocks]
    m.u32(f"{a}.block_count", len(blocks))
    m.array(f"{a}.attention.head_count", "INT32", heads)
    m.array(f"{a}.attention.sliding_window_pattern", "BOOL", windows)
    m.array(f"{a}.attention.indexer.types", "BOOL", [not window for window in windows])
    rank, rotated = c.integer("swa_kv_lora_rank"), c.integer("swa_qk_rope_head_dim")
    m.u32(f"{a}.attention.key_length_swa", rank + rotated)
    m.u32(f"{a}.attention.value_length_swa", rank)
    m.u32(f"{a}.attention.key_length_mla_swa", c.integer("swa_qk_nope_head_dim") + rotated)
    m.u32(f"{a}.attention.value_length_mla_swa", c.integer("swa_v_head_dim"))
    if more:
        m.u32(f"{a}.nextn_predict_layers", more)


def parts(prefix: str, heads: str) -> Make:
    """What makes keys and values of what is latent, of heads as wide as keys with ``prefix`` say."""
    return lambda rows, c: separate(
        rows[0], c.integer(heads), c.integer(f"{prefix}qk_nope_head_dim"), c.integer(f"{prefix}v_head_dim")
    )


def rescaled(rank: str) -> Make:
    """A norm with what its output is scaled by, where it is."""

    def make(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
        if not c.get("apply_mla_qkv_lora_rescale"):
            return rows
        return [Mapped(rows[0], times(math.sqrt(c.hidden / c.integer(rank))))]

    return make


def eot(m: Metadata, a: str, c: Config) -> None:
    """The token that ends an answer, which no file names."""
    if _END not in m.get("tokenizer.ggml.tokens", ()):
        raise BadInput(f"{c.folder}: the tokenizer has no token {_END!r}", "Fetch its files again.")
    tokens_by_text({"eot": _END}, instead=True)(m, a, c)


def spelled(name: str, c: Config) -> str:
    """``name`` with the embedding of the further block in its place."""
    return plain_name(f"model.layers.{c.n_layers}.embed_tokens.weight" if name == _FURTHER else name)


def _as(key: str) -> Assumed:
    return Assumed(lambda _, c: (c.get(key),))


def _swa_width(_stated: object, c: Config) -> tuple[object, ...]:
    return (c.integer("swa_qk_nope_head_dim") + c.integer("swa_qk_rope_head_dim"),)


_KV_NORM = ("blk.{bid}.attn_kv_a_norm.weight",), (f"{_SELF}.kv_a_layernorm.weight",)
FAMILY = replace(
    deepseek2.FAMILY,
    arch="dots3note",
    named_as="glm-dsa",
    architectures=("Dots3NoteForCausalLM", "Dots3NoteForConditionalGeneration", "Dots3NoteTextForCausalLM"),
    tokenizer=BPE,
    further=further,
    classes={},
    assumes={
        **{key: value for key, value in deepseek2.ASSUMES.items() if key not in ("layer_types", "use_sliding_window")},
        "use_dsa": Assumed((True,)), "normalization": Assumed(("RMSNorm",)), "final_norm": Assumed(("RMSNorm",)),
        "k_rope_only_layernorm": Assumed((True,)), "topk_method": Assumed(("noaux_tc",)), "scoring_func": Assumed(("sigmoid",)),
        "n_group": Assumed((1,)), "topk_group": Assumed((1,)), "use_dynamic_rsf": Assumed((False,)),
        "moe_gating_fp32": Assumed((False,)), "attention_gate_type": Assumed(("headwise",)),
        "swa_attention_gate_type": Assumed(("headwise",)), "swa_head_dim": Assumed(_swa_width),
        "swa_qk_rope_head_dim": _as("qk_rope_head_dim"), "swa_q_lora_rank": _as("q_lora_rank"),
    },
    idle=(*deepseek2.IDLE, "swa_num_key_value_heads", "use_sliding_window"),
    keys=(
        *(key for key in deepseek2.KEYS if key is not key_value_length), layers, INDEXER, numbers({
            "attention.sliding_window": "sliding_window_size", "attention.kv_lora_rank_swa": "swa_kv_lora_rank",
        }), reals({"rope.freq_base_swa": "swa_rope_theta"}),
    ),
    token_keys=(eot,),
    spelled=spelled,
    drops={},
    names={
        **NEXTN_NAMES, f"{_SELF}.g_proj": "blk.{bid}.attn_gate", f"{_SELF}.k_rope_only_layernorm": "blk.{bid}.attn_k_norm",
    },
    rules=(
        Rule(KV_B.targets, KV_B.sources, parts("", "num_attention_heads"), has_none),
        Rule(KV_B.targets, KV_B.sources, parts("swa_", "swa_num_attention_heads"), has_window),
        Rule(("blk.{bid}.attn_q_a_norm.weight",), (f"{_SELF}.q_a_layernorm.weight",), rescaled("q_lora_rank")),
        Rule(*_KV_NORM, rescaled("kv_lora_rank"), has_none), Rule(*_KV_NORM, rescaled("swa_kv_lora_rank"), has_window),
        deepseek2.EXPERTS_OF_MLP,
    ),
)  # fmt: skip
