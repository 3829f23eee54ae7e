"""Chameleon: Llama with norms of queries and keys; images are tokens too, but what makes them is left out."""

from __future__ import annotations

from ...kit import cut, interleaved, join, take
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE
from ..tokenizers import BPE
from .llama import interleave_k, interleave_q


def norm(rows: Rows, c: Config) -> Rows:
    """A row for each head, with adjacent rotary pairs.

    All heads have the norm of the first, as the reference has it, which stops at keys of fewer heads than queries: there (30B) each
    has its own, shared by those of one of the processors it was trained on.
    """
    turned = take(rows, interleaved(rows.shape[-1], 1), -1)
    return turned if c.n_kv_heads != c.n_heads else join([cut(turned, 0, 1)] * rows.shape[0])


def swin_norm(m: Metadata, a: str, c: Config) -> None:
    """Whether norms are behind attention and network."""
    m.boolean(f"{a}.swin_norm", bool(c.get("swin_norm")))


FAMILY = Family(
    arch="chameleon",
    architectures=("ChameleonForConditionalGeneration", "ChameleonForCausalLM"),
    tokenizer=BPE,
    classes={"chameleon": class_defaults(
        65536, 4096, 4096, 11008, 32, 32, 32, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, swin_norm=False,
    )},
    assumes={**GATED_SILU, "head_dim": Assumed(lambda _, c: (c.hidden // max(c.n_heads, 1),))},
    idle=("vq_config", "vocabulary_map", "model_parallel_size"),
    keys=(*BASE, swin_norm),
    transforms={"attn_q": interleave_q, "attn_k": interleave_k, "attn_q_norm": norm, "attn_k_norm": norm},
    drops={"model.vqmodel*": "what makes tokens of images"},
)  # fmt: skip
