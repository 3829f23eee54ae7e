"""Models of the Llama layout under other names: IQuest Coder, VLlama 3, and the text models of Janus."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import GATED_SILU, Assumed
from ..config import Config, UnlessNull
from ..family import class_defaults
from ..names import plain_name
from . import llama

_OTHERS = {
    f"model.{part}*": "not part of the text model" for part in ("vqmodel.", "aligner.", "generation_", "connector.")
}


def spelled(name: str, _config: Config) -> str:
    """``name`` as a text-only checkpoint would spell it."""
    return plain_name(name.replace("text_model.", ""))


FAMILY = replace(
    llama.FAMILY,
    architectures=("IQuestCoderForCausalLM", "VLlama3ForCausalLM", "JanusForConditionalGeneration"),
    classes={**llama.FAMILY.classes, "vllama3": {"num_attention_heads": 32}, "iquestcoder": class_defaults(
        76800, 131072, 5120, 27648, 80, 40, 8, head_dim=UnlessNull(128), rms_norm_eps=1e-5,
    )},
    assumes={**GATED_SILU, "clip_qkv": Assumed(())},
    idle=("vq_config", "image_*", "scale_factor"),
    spelled=spelled,
    drops=_OTHERS,
)  # fmt: skip
