"""Which text model is inside a checkpoint of several modules: LLaVA, MiniCPM-V and their like."""

from __future__ import annotations

from ..sources.checkpoint import Checkpoint
from ..sources.hf_config import text_section, text_sections
from .config import architecture

#: Architectures around any text model that runtimes load by itself; the outer name decides, since others change what is inside.
OUTER = (
    "LlavaForConditionalGeneration", "VoxtralForConditionalGeneration", "Qwen2AudioForConditionalGeneration",
    "AudioFlamingo3ForConditionalGeneration",
)  # fmt: skip
#: ``model_type`` of the section of the text model -> architecture of the text model alone
_BY_TYPE = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
#: Architectures whose config.json is that of a text model that it does not name; its tensors start with ``llm.``.
UNNAMED = ("MiniCPMV", "MiniCPMO")
#: what to do about projectors that are refused
LEGACY = "Those of others are made by llama.cpp's legacy scripts (tools/mtmd/legacy-models)."
#: what it says, among the sizes of the text model, of images and of their tower
_OF_IMAGES = (
    "version", "query_num", "image_size", "drop_vision_last_layer", "batch_vision_input", "vision_batch_size", "slice_*",
    "use_image_id",
)  # fmt: skip


def text_architecture(checkpoint: Checkpoint) -> str:
    """The architecture of the text model in ``checkpoint``, "" when it is not known.

    The modules of a text model differ in their attention: Qwen 2 has biases on queries, Qwen 3 norms, Llama neither.
    """
    name = architecture(checkpoint.config)
    if name in OUTER and text_sections(checkpoint.config):
        return _BY_TYPE.get(str(text_section(checkpoint.config).get("model_type")), "")
    if name not in UNNAMED:
        return ""
    block = "llm.model.layers.0.self_attn."
    if f"{block}q_norm.weight" in checkpoint.tensors:
        return "Qwen3ForCausalLM"
    if f"{block}q_proj.bias" in checkpoint.tensors:
        return "Qwen2ForCausalLM"
    return "LlamaForCausalLM" if f"{block}q_proj.weight" in checkpoint.tensors else ""


def of_other_parts(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Patterns of keys that stand beside those of the text model in config.json and are not its own."""
    return _OF_IMAGES if architecture(checkpoint.config) in UNNAMED else ()
