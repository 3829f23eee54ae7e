"""Mistral's own layout: rotary pairs lie side by side already; a mixture of experts is DeepSeek's, with softmax."""

from __future__ import annotations

from dataclasses import replace

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import GATED_SILU, WINDOW_IGNORED
from ..config import Config
from ..family import Family
from ..keys import BASE, rope_dimension_count
from ..tokenizers import MISTRAL
from . import deepseek2

_EXPERT = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_DROPS = {
    pattern: "not part of the text model"
    for pattern in ("vision_*", "patch_merger.*", "pre_mm_projector_norm.*", "mm_whisper_embeddings.*")
}
_IDLE = (
    "rope_parameters.mscale*", "rope_parameters.llama_4_scaling_beta", "vision_encoder", "audio_encoder", "multimodal",
    "vocab_size",
)  # fmt: skip


def long_texts(m: Metadata, a: str, c: Config) -> None:
    """How far yarn sharpens attention, and how it grows with the text."""
    if c.rope.get("mscale_all_dim") is not None:
        m.f32(f"{a}.rope.scaling.yarn_log_multiplier", c.rope["mscale_all_dim"])
    if c.rope.get("llama_4_scaling_beta") is not None:
        m.f32(f"{a}.attention.temperature_scale", c.rope["llama_4_scaling_beta"])


def long_texts_of_experts(m: Metadata, a: str, c: Config) -> None:
    """The same of the mixture, which runtimes compute with a tenth, from where yarn begins."""
    long_texts(m, a, c)
    if c.rope.get("rope_type") == "yarn":
        m.f32(f"{a}.rope.scaling.yarn_log_multiplier", 0.1)
        m.u32(f"{a}.attention.temperature_length", c.rope["original_max_position_embeddings"])


def as_deepseek(name: str, _config: Config) -> str:
    """``layers.1.experts.0.w1.weight`` as DeepSeek calls it, and what makes keys and values; other names as they are."""
    parts = name.split(".")
    if "experts" in parts:
        at = parts.index("experts")
        parts[at:at] = ["mlp"]
        return ".".join(["model", *(_EXPERT.get(part, part) for part in parts)])
    return f"model.{name}".replace(".attention.wkv_b.", ".self_attn.kv_b_proj.") if ".wkv_b." in name else name


def meant(dense: Family, config: Config) -> Family:
    """The family by what params.json has: a mixture, or attention that grows with the text.

    Raises
    ------
    BadInput : a mixture of another kind
    """
    if config.get("n_routed_experts") is not None:
        if config.get("kv_lora_rank") is None:
            raise BadInput(
                f"{config.place}: experts without 'kv_lora_rank' are those of Mixtral, read in the Hugging Face layout only",
                "Fetch that form of the model, and leave --mistral-format out.",
            )
        return MIXTURE
    return replace(dense, arch="mistral3") if config.rope.get("llama_4_scaling_beta") is not None else dense


FAMILY = Family(
    arch="llama",
    architectures=("MistralFormat",),
    tokenizer=MISTRAL,
    variant=meant,
    assumes={**GATED_SILU, "sliding_window": WINDOW_IGNORED},
    idle=_IDLE,
    keys=(*BASE, rope_dimension_count, long_texts),
    spelled=lambda name, _: name,
    drops=_DROPS,
)
MIXTURE = replace(
    deepseek2.FAMILY, architectures=("MistralFormat",), tokenizer=MISTRAL, classes={}, idle=(*deepseek2.IDLE, *_IDLE),
    keys=(*deepseek2.KEYS, long_texts_of_experts), spelled=as_deepseek, drops=_DROPS,
)  # fmt: skip
