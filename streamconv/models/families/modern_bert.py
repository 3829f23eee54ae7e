"""ModernBERT: an encoder with rotated heads, gates, windows in two of three layers, and no norm before the first."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..keys import vocab_size
from ..tokenizers import BPE
from . import bert
from ._encoder import bare, classifier_pooling
from ._stated import fixed, numbers

_ONE_AFTER = "the reference has no place for it, and embeddings are what is before it"


def bases(m: Metadata, a: str, c: Config) -> None:
    """The bases of both kinds of layers, and the epsilon of norms under either name."""
    stated = c.get("rope_parameters")
    for key, name, kind in (("freq_base", "global_rope_theta", "full_attention"),
                            ("freq_base_swa", "local_rope_theta", "sliding_attention")):  # fmt: skip
        inner = stated.get(kind) if isinstance(stated, dict) else None
        if c.get(name) is not None:
            m.f32(f"{a}.rope.{key}", c.real(name))
        elif isinstance(inner, dict) and inner.get("rope_theta"):
            m.f32(f"{a}.rope.{key}", float(inner["rope_theta"]))
    m.f32(f"{a}.attention.layer_norm_epsilon", c.real("norm_eps", "layer_norm_eps"))
    if c.get("hidden_activation"):
        m.string(f"{a}.hidden_activation", str(c.get("hidden_activation")))


def ends(m: Metadata, _a: str, _c: Config) -> None:
    """A text is framed, unless the tokenizer's files say otherwise."""
    for name in ("bos", "eos", "sep"):
        if f"tokenizer.ggml.add_{name}_token" not in m:
            m.boolean(f"tokenizer.ggml.add_{name}_token", True)


FAMILY = replace(
    bert.FAMILY,
    arch="modern-bert",
    architectures=("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"),
    tokenizer=BPE,
    classes={"modernbert": {
        "vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22,
        "num_attention_heads": 12, "hidden_activation": "gelu", "max_position_embeddings": 8192, "norm_eps": 1e-5,
        "pad_token_id": 50283, "eos_token_id": 50282, "bos_token_id": 50281, "cls_token_id": 50281, "sep_token_id": 50282,
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 160000.0},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
        "global_attn_every_n_layers": 3, "local_attention": 128,
        "classifier_pooling": "cls", "tie_word_embeddings": True,
    }},
    assumes={"hidden_activation": Assumed(("gelu",)), "classifier_activation": Assumed(("gelu",)),
             "norm_bias": Assumed((False,)), "layer_types": Assumed(lambda _, c: ([
                 "sliding_attention" if n % c.integer("global_attn_every_n_layers") else "full_attention"
                 for n in range(c.n_layers)],))},
    idle=(*bert.FAMILY.idle, "decoder_bias", "deterministic_*", "initializer_*", "sparse_*", "repad_*", "reference_compile"),
    keys=(
        *bert.FAMILY.keys, vocab_size, bases, classifier_pooling, fixed({"rope.scaling.type": "none"}), numbers({
            "attention.sliding_window": "local_attention", "attention.sliding_window_pattern": "global_attn_every_n_layers",
        }),
    ),
    token_keys=(ends,),
    spelled=bare,
    drops={**bert.FAMILY.drops, "decoder.*": _ONE_AFTER},
)  # fmt: skip
