"""The text model of DeepSeek OCR and Unlimited OCR: DeepSeek V2's experts beside plain attention."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..keys import BASE, vocab_size
from . import deepseek2
from ._mla import yarn_log_multiplier
from ._stated import numbers, reals

_TEMPLATE = "{% for m in messages %}{{m['content']}}{% endfor %}"
_OF_TOWERS = "not part of the text model"


def epsilon(m: Metadata, a: str, c: Config) -> None:
    """Epsilon of RMS norms where it is not said, and a window, which runtimes read and do not keep to."""
    if c.get("rms_norm_eps", "norm_eps") is None:
        m.f32(f"{a}.attention.layer_norm_rms_epsilon", 1e-6)
    names = "sliding_window_size", "sliding_window"
    if any(c.get(name) for name in names):
        m.u32(f"{a}.attention.sliding_window", c.integer(*(name for name in names if c.get(name))))


def plain_template(m: Metadata, a: str, c: Config) -> None:
    """A template that adds nothing, where the tokenizer has none."""
    if "tokenizer.chat_template" not in m:
        m.string("tokenizer.chat_template", _TEMPLATE)


FAMILY = replace(
    deepseek2.FAMILY,
    arch="deepseek2-ocr",
    architectures=("DeepseekOCRForCausalLM", "DeepseekOCR2ForCausalLM", "UnlimitedOCRForCausalLM"),
    classes={},
    assumes={**deepseek2.ASSUMES, "use_mla": Assumed((False,)), "rm_head": Assumed((False,))},
    idle=(*deepseek2.IDLE, "lm_head", "kv_lora_rank", "qk_*_head_dim", "v_head_dim"),
    keys=(
        *BASE, vocab_size, epsilon, deepseek2.mixture,
        numbers({"attention.q_lora_rank": "q_lora_rank", "rope.dimension_count": "qk_rope_head_dim"}),
        reals({"expert_weights_scale": "routed_scaling_factor"}), yarn_log_multiplier,
    ),
    token_keys=(plain_template,),
    drops={
        **deepseek2.FAMILY.drops, "*sam_model*": _OF_TOWERS, "*qwen2_model*": _OF_TOWERS, "*view_seperator": _OF_TOWERS,
    },
    rules=(deepseek2.EXPERTS_OF_MLP,),
)  # fmt: skip
