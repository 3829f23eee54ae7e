"""Mistral 3 and Ministral: the Llama layout; Ministral makes attention sharper in long texts. Mistral 4 goes by the same name."""

from __future__ import annotations

from dataclasses import replace

from ...errors import BadInput
from ...metadata import Metadata
from ..config import Config
from ..family import Family, class_defaults
from . import llama, mistral, mistral4


def long_texts(m: Metadata, a: str, c: Config) -> None:
    """What Ministral does to attention beside yarn, without which runtimes do not take it."""
    if c.get("model_type") != "ministral3":
        return
    if c.rope.get("rope_type") != "yarn":
        raise BadInput(f"config.json: Ministral's 'rope_type' is {c.rope.get('rope_type')!r}, runtimes know yarn only")
    for key, name in (
        ("rope.scaling.yarn_log_multiplier", "mscale_all_dim"),
        ("attention.temperature_scale", "llama_4_scaling_beta"),
    ):
        if c.rope.get(name) is not None:
            m.f32(f"{a}.{key}", float(c.rope[name]))


def variants(family: Family, c: Config) -> Family:
    """Mistral 4 has the same outer class."""
    inner = replace(mistral4.FAMILY, tokenizer=family.tokenizer and mistral4.FAMILY.tokenizer)
    return inner if c.get("model_type") == "mistral4" else family


FAMILY = replace(
    mistral.FAMILY,
    arch="mistral3",
    architectures=("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"),
    classes={
        **mistral.FAMILY.classes,
        **mistral4.CLASSES,
        "ministral3": class_defaults(
            131072, 262144, 4096, 14336, 34, 32, 8, head_dim=128, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
            pad_token_id=11, rope_parameters={
                "rope_type": "yarn", "rope_theta": 1000000.0, "factor": 16.0, "original_max_position_embeddings": 16384,
                "beta_fast": 32.0, "beta_slow": 1.0, "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1},
        ),
    },
    variant=variants,
    idle=("rope_parameters.mscale*", "rope_parameters.llama_4_scaling_beta", "rope_parameters.max_position_embeddings"),
    keys=(*llama.FAMILY.keys, long_texts),
)  # fmt: skip
