"""LLaDA: the Llama layout under OLMo's names, which fills in masks."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..keys import BASE, rope_dimension_count, vocab_size
from ..tokenizers import BPE
from . import llama
from .bert import looks_both_ways


def diffusion(m: Metadata, _a: str, _c: Config) -> None:
    """Logits are those of the token itself."""
    m.boolean("diffusion.shift_logits", False)


def sizes(m: Metadata, a: str, c: Config) -> None:
    """Widths under names of their own."""
    for key, name, default in (("context_length", "max_sequence_length", 4096), ("embedding_length", "d_model", 4096),
                               ("feed_forward_length", "mlp_hidden_size", 12288)):  # fmt: skip
        m.u32(f"{a}.{key}", c.integer(name) if c.get(name) is not None else default)


def start(m: Metadata, _a: str, _c: Config) -> None:
    """A text begins with a token of its own."""
    m.boolean("tokenizer.ggml.add_bos_token", True)


FAMILY = replace(
    llama.FAMILY,
    arch="llada",
    architectures=("LLaDAModelLM",),
    tokenizer=BPE,
    classes={},
    assumes={
        "activation_type": Assumed(("silu", "swiglu")), "block_type": Assumed(("llama",)), "rope": Assumed((True,)),
        "layer_norm_type": Assumed(("rms",)), "alibi": Assumed((False,)), "scale_logits": Assumed((False,)),
        "weight_tying": Assumed((False,)), "rope_full_precision": Assumed((True,)),
    },
    idle=("mlp_ratio", "embedding_size", "include_*", "mask_token_id", "*_dropout", "attention_layer_norm*", "bias_for_layer_norm",
          "block_group_size", "flash_attention", "init_*", "input_emb_norm", "layer_norm_with_affine", "multi_query_attention",
          "precision"),
    keys=(*BASE, vocab_size, rope_dimension_count, sizes, looks_both_ways, diffusion),
    token_keys=(start,),
)  # fmt: skip
