"""The text model of Qwen 3 VL and of Qwen 3 ASR: Qwen 3 that gets features of several layers of the vision tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE
from ..tokenizers import BPE
from . import qwen3
from ._rerank import reranking

_CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def deepstack(m: Metadata, a: str, c: Config) -> None:
    """How many layers get features; the class of the tower has three where config.json does not say."""
    vision = c.raw.get("vision_config")
    listed = vision.get("deepstack_visual_indexes", (8, 16, 24)) if isinstance(vision, Mapping) else ()
    m.u32(f"{a}.n_deepstack_layers", len(listed or ()))


def turn_ends(m: Metadata, a: str, c: Config) -> None:
    """Texts begin and end as turns do."""
    tokens = list(m.get("tokenizer.ggml.tokens", ()))
    if "<|im_end|>" in tokens:
        m.u32("tokenizer.ggml.bos_token_id", tokens.index("<|im_end|>"))
        m.u32("tokenizer.ggml.eos_token_id", tokens.index("<|im_end|>"))


def plain_template(m: Metadata, a: str, c: Config) -> None:
    """The template of speech recognition, which runtimes do not compute, is a plain one."""
    m.string("tokenizer.chat_template", _CHATML)


def variants(family: Family, c: Config) -> Family:
    """Rerankers, and speech recognition."""
    family = reranking(family, c)
    return (
        replace(family, token_keys=(turn_ends, plain_template)) if "ASR" in str(c.raw.get("architectures")) else family
    )


FAMILY = replace(
    qwen3.FAMILY,
    arch="qwen3vl",
    architectures=("Qwen3VLForConditionalGeneration", "Qwen3ASRForConditionalGeneration"),
    tokenizer=BPE,
    classes={
        "qwen3_vl_text": class_defaults(
            151936, 128000, 4096, 22016, 32, 32, 32, head_dim=128,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        ),
        **qwen3.FAMILY.classes,
    },
    keys=(*BASE, deepstack),
    variant=variants,
)  # fmt: skip
