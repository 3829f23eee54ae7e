"""T5 and its kin: an encoder and a decoder with positions as biases of attention; both use one table of tokens."""

from __future__ import annotations

from typing import Any

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import block_count, embedding_length, file_type
from ..tokenizers import T5

_ACTIVATION = "runtimes compute gelu where there are gates, else relu"
#: spellings of the table of tokens, of which checkpoints have one or several
_TABLES = ("decoder.embed_tokens.weight", "encoder.embed_tokens.weight", "shared.weight")


def class_defaults_of_t5(vocabulary: int, ffn: int, layers: int, heads: int) -> dict[str, Any]:
    """Class defaults of the configurations of the kin."""
    return {
        "vocab_size": vocabulary, "d_model": 512, "d_kv": 64, "d_ff": ffn, "num_layers": layers, "num_heads": heads,
        "num_decoder_layers": lambda c: c.n_layers, "relative_attention_num_buckets": 32, "layer_norm_epsilon": 1e-6,
        "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": True,
    }  # fmt: skip


def _is_tied(c: Config) -> bool:
    return c.get("tie_word_embeddings") is not False


def spelled(name: str, c: Config) -> str:
    """The first table of tokens by its common name, the others as copies."""
    if name not in _TABLES:
        return name
    names = c.checkpoint.tensors if c.checkpoint is not None else _TABLES
    return "shared.weight" if name == next(each for each in names if each in _TABLES) else f"copy.{name}"


def sizes(m: Metadata, a: str, c: Config) -> None:
    """Widths and depths of both stacks."""
    m.u32(f"{a}.context_length", c.integer("n_positions") if c.get("n_positions") else 512)
    embedding_length(m, a, c)
    m.u32(f"{a}.feed_forward_length", c.integer("d_ff"))
    block_count(m, a, c)
    m.u32(f"{a}.decoder_block_count", c.integer("num_decoder_layers", "num_layers"))
    m.u32(f"{a}.attention.head_count", c.integer("num_heads"))
    m.u32(f"{a}.attention.key_length", c.integer("d_kv"))
    m.u32(f"{a}.attention.value_length", c.integer("d_kv"))


def attention(m: Metadata, a: str, c: Config) -> None:
    """Norms, positions, and the token that a decoder begins with."""
    m.f32(f"{a}.attention.layer_norm_epsilon", c.real("layer_norm_epsilon"))
    m.u32(f"{a}.attention.relative_buckets_count", c.integer("relative_attention_num_buckets"))
    m.f32(f"{a}.attention.layer_norm_rms_epsilon", c.real("layer_norm_epsilon"))
    m.u32(f"{a}.decoder_start_token_id", c.integer("decoder_start_token_id"))


FAMILY = Family(
    arch="t5",
    architectures=(
        "T5ForConditionalGeneration", "T5WithLMHeadModel", "MT5ForConditionalGeneration", "UMT5ForConditionalGeneration",
        "UMT5Model",
    ),
    tokenizer=T5,
    classes={
        "t5": {**class_defaults_of_t5(32128, 2048, 6, 8), "scale_decoder_outputs": _is_tied},
        "mt5": class_defaults_of_t5(250112, 1024, 8, 6),
        "umt5": class_defaults_of_t5(250112, 1024, 8, 6),
    },
    assumes={
        "feed_forward_proj": Assumed(("relu", "gated-gelu"), _ACTIVATION),
        "dense_act_fn": Assumed(("relu", "gelu_new"), _ACTIVATION),
        "relative_attention_max_distance": Assumed((128,)),
        "scale_decoder_outputs": Assumed((False,), "runtimes do not scale the logits: probabilities are sharper"),
    },
    idle=("is_gated_act", "scalable_attention", "is_decoder"),
    keys=(sizes, attention, file_type),
    spelled=spelled,
    drops={"copy.*": "the same table of tokens again"},
)  # fmt: skip
