"""StableLM: layer norms, a part of each head rotated; some have a norm for each head, and no second norm of a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import GATED_SILU
from ..config import Config
from ..family import Family, class_defaults
from ..keys import (
    block_count,
    context_length,
    embedding_length,
    feed_forward_length,
    file_type,
    head_count,
    head_count_kv,
)
from ..rules import Rule
from ..tokenizers import TokenizerRule
from ..tokenizers.files import TokenizerFiles
from ..tokenizers.special import id_key
from ..tokenizers.tiktoken import read_tiktoken
from ..tokenizers.vocabulary import Vocabulary
from .gemma import unusual_rope

_RANKS, _FIRST_SPECIAL = "arcade100k.tiktoken", 100257
_END = "<|endoftext|>"
#: what StableLM 2's own code has from there on
_SPECIALS = (
    _END, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<gh_stars>", "<filename>", "<issue_start>",
    "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>",
    "<empty_output>", "<commit_before>", "<commit_msg>", "<commit_after>", "<reponame>", "<|endofprompt|>", "<|im_start|>",
    "<|im_end|>", "<|pause|>", *(f"<|reg{n}|>" for n in range(8)), "<|extra0|>",
)  # fmt: skip


def read_arcade(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, pre: str | None) -> Vocabulary:
    """The vocabulary of ``arcade100k.tiktoken`` (BadInput: it is damaged), in which an id before the special ones is free."""

    def specials(n_ranks: int) -> list[str | None]:
        return [*[None] * (_FIRST_SPECIAL - n_ranks), *_SPECIALS]

    vocabulary = read_tiktoken(files, config, size, _RANKS, specials, pre or "stablelm2")
    vocabulary.more.u32(id_key("unk"), _FIRST_SPECIAL)
    return vocabulary


def attention(m: Metadata, a: str, c: Config) -> None:
    """Rotated dimensions of a head, and the order of attention and network."""
    share = c.rope.get("partial_rotary_factor")
    if not isinstance(share, (int, float)):
        raise BadInput("config.json: 'partial_rotary_factor' is missing")
    m.u32(f"{a}.rope.dimension_count", int(share * (c.hidden // max(c.n_heads, 1))))
    parallel = c.get("use_parallel_residual")
    m.boolean(f"{a}.use_parallel_residual", True if parallel is None else bool(parallel))
    m.f32(f"{a}.attention.layer_norm_epsilon", c.real("layer_norm_eps", "norm_eps"))


FAMILY = Family(
    arch="stablelm",
    architectures=("StableLmForCausalLM", "StableLMEpochForCausalLM", "LlavaStableLMEpochForCausalLM"),
    tokenizer=TokenizerRule(("bpe", "ranks"), own={"ranks": (_RANKS, read_arcade)}),
    classes={"stablelm": class_defaults(
        50304, 4096, 2560, 6912, 32, 32, 32, rms_norm_eps=None, layer_norm_eps=1e-5, partial_rotary_factor=0.25,
        use_parallel_residual=False, bos_token_id=0, eos_token_id=0,
    )},
    assumes={key: GATED_SILU[key] for key in ("hidden_act", "rope_type")},
    idle=("qk_layernorm", "rotary_scaling_factor"),
    keys=(
        context_length, embedding_length, block_count, feed_forward_length, head_count, head_count_kv, attention, unusual_rope,
        file_type,
    ),
    rules=tuple(
        Rule((f"blk.{{bid}}.attn_{part}_norm.weight",), (f"model.layers.{{bid}}.self_attn.{part}_layernorm.norms.{{x}}.weight",))
        for part in "qk"
    ),
)  # fmt: skip
