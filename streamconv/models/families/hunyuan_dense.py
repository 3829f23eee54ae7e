"""Hunyuan, dense: norms on heads; a context that is stretched by another base of RoPE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, expert_counts
from ..tokenizers import TokenizerRule
from ..tokenizers.files import TokenizerFiles
from ..tokenizers.tiktoken import read_tiktoken
from ..tokenizers.vocabulary import Vocabulary
from ._hunyuan import LONG, stretched

#: what follows the ranks of hy.tiktoken
SPECIALS = (
    "<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>", *(f"<|extra_{n}|>" for n in range(205)),
)  # fmt: skip


def read_hunyuan(
    files: TokenizerFiles, config: Mapping[str, Any], vocab_size: int | None, pre: str | None
) -> Vocabulary:
    """The vocabulary of ``hy.tiktoken`` (BadInput: it is damaged)."""
    return read_tiktoken(files, config, vocab_size, "hy.tiktoken", SPECIALS, pre or "hunyuan-dense")


def long_context(m: Metadata, a: str, c: Config) -> None:
    """The base of RoPE that stretches the context, of which runtimes are told instead of the stretching."""
    if c.rope.get("rope_type") != "dynamic":
        return
    alpha, base, width = c.rope.get("alpha") or 50, c.rope.get("rope_theta"), c.head_dim
    length = c.get("max_position_embeddings")
    if base != 10000 or length not in (32 * 1024, LONG) or not isinstance(alpha, (int, float)) or width <= 2:
        raise BadInput(
            f"config.json: RoPE of type 'dynamic' with a base of {base} and a context of {length} is no known Hunyuan",
            "Known are a base of 10000 and contexts of 32768 and 262144.",
        )
    stretched(m, a, alpha, base, width)


def ends(m: Metadata, a: str, c: Config) -> None:
    """What begins and ends a text and a turn; a negative id stands for no padding."""
    padding = c.raw_value("pad_token_id")
    if isinstance(padding, int) and padding < 0:
        m.remove("tokenizer.ggml.padding_token_id")
    if c.hidden == 4096:
        m.u32("tokenizer.ggml.bos_token_id", 127958)
    if c.raw_value("eod_token_id") is not None:
        m.u32("tokenizer.ggml.eos_token_id", c.integer("eod_token_id"))
    stated = (c.side("generation_config.json") or {}).get("eos_token_id")
    if isinstance(stated, list) and len(stated) > 1 and isinstance(stated[0], int):
        m.u32("tokenizer.ggml.eot_token_id", stated[0])


FAMILY = Family(
    arch="hunyuan-dense",
    architectures=("HunYuanDenseV1ForCausalLM",),
    tokenizer=TokenizerRule(("bpe", "hunyuan"), own={"hunyuan": ("hy.tiktoken", read_hunyuan)}),
    classes={"hunyuan_v1_dense": class_defaults(
        290943, 2048, 4096, 11008, 32, 32, None, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )},
    assumes={
        "hidden_act": GATED_SILU["hidden_act"], "rope_type": Assumed(("default", "linear", "yarn", "dynamic")),
        "use_qk_norm": Assumed((True,)), "num_experts": Assumed((0, 1)), "use_cla": Assumed((False,)),
    },
    idle=("rope_parameters.alpha", "rope_parameters.mscale*", "num_experts_per_tok", "moe_*", "cla_share_factor", "*_id"),
    keys=(*(key for key in BASE if key is not expert_counts), long_context),
    token_keys=(ends,),
)  # fmt: skip
