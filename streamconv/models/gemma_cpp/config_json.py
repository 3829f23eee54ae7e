"""config.json of the model in a weight file, as transformers saves it.

A weight file says what gemma.cpp computes, which is not all that config.json says: the bases of RoPE are those of the family, and
where all sizes are those of a model that was published, so are its longest text, its scale of RoPE and its scale of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import BadInput
from .model_config import GEMMA3_IMAGES, INSTRUCTION, MODEL_WIDTH, TEXT_LAYER, LayerConfig, ModelConfig

#: Gemma 3 as published with images, by width, layers and heads: trained on texts of 128k tokens
_LONG = ((2560, 34, 8), (3840, 48, 16), (5376, 62, 32))
_LONGEST, _STRETCHED = 131072, {"factor": 8.0, "rope_type": "linear"}
#: the largest of which scales queries otherwise than gemma.cpp does
_BY_WIDTH = (5376, 62, 32)
#: of how many layers one looks at all that lies before it
_EVERY = {"gemma2": 2, "gemma3_text": 6}
_TOKENS = {"bos_token_id": 2, "pad_token_id": 0}
_COMMON = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-06,
    "use_cache": True,
}


def config_json(config: ModelConfig, n_tokens: int, path: Path) -> dict[str, Any]:
    """The configuration.

    Parameters
    ----------
    n_tokens : rows of the embedding

    Raises
    ------
    BadInput : no class of transformers computes this model; names file and field
    """
    text = _text(config, n_tokens, path)
    kind = text["model_type"]
    if not config.vit_config.layer_configs:
        classes = {"gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM"}
        return {"architectures": [classes[kind]], **text, "torch_dtype": "bfloat16"}
    whole = {"hidden_size": config.model_dim, "tie_word_embeddings": True, "torch_dtype": "bfloat16"}
    tower = _tower(config, path)
    if config.wrapping == GEMMA3_IMAGES:
        if kind != "gemma3_text":
            raise BadInput(f"{path}: the model takes images as Gemma 3 does, its text model is of {kind}")
        side = config.vit_config.image_size // config.vit_config.patch_width // max(config.vit_config.pool_dim, 1)
        return {
            "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "boi_token_index": 255999,
            "eoi_token_index": 256000, "image_token_index": n_tokens, "mm_tokens_per_image": side * side,
            "eos_token_id": text["eos_token_id"], "initializer_range": 0.02, "text_config": text, "vision_config": tower, **whole,
        }  # fmt: skip
    if kind == "gemma3_text":
        raise BadInput(f"{path}: the model takes images as PaliGemma does, its text model is of Gemma 3")
    tower |= {"projection_dim": config.model_dim, "num_image_tokens": config.vit_config.seq_len}
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"], "model_type": "paligemma", **_TOKENS,
        "eos_token_id": text["eos_token_id"], "image_token_index": n_tokens, "projection_dim": config.model_dim,
        "vocab_size": n_tokens, "text_config": {**text, "num_image_tokens": config.vit_config.seq_len},
        "vision_config": tower, **whole,
    }  # fmt: skip


def _same(layers: Sequence[LayerConfig], what: str, path: Path) -> LayerConfig:
    """The configuration that all layers have."""
    for number, layer in enumerate(layers):
        if layer != layers[0]:
            raise BadInput(f"{path}: {what} {number} is not like {what} 0, for which config.json has no words")
    return layers[0]


def _text(config: ModelConfig, n_tokens: int, path: Path) -> dict[str, Any]:
    if not config.layer_configs:
        raise BadInput(f"{path}: the configuration describes no layers")
    layer = _same(config.layer_configs, "layer", path)
    for field, value in (
        ("type", layer.type != TEXT_LAYER), ("ff_biases", layer.ff_biases), ("activation", layer.activation),
        ("post_qk", layer.post_qk), ("absolute_pe", config.absolute_pe), ("model_dim", layer.model_dim != config.model_dim),
        ("qkv_dim", not layer.qkv_dim), ("heads", not layer.heads), ("kv_heads", not layer.kv_heads),
    ):  # fmt: skip
        if value:
            said = getattr(layer, field, getattr(config, field, None))
            raise BadInput(f"{path}: {field!r} of the layers is {said}, which no Gemma of transformers has")
    kind = "gemma3_text" if layer.use_qk_norm else "gemma2" if layer.post_norm else "gemma"
    if layer.use_qk_norm and not layer.post_norm:
        raise BadInput(f"{path}: the layers have norms of keys, and none behind them, as no Gemma of transformers")
    n_layers = len(config.layer_configs)  # which is what counts, whatever ``num_layers`` is
    sizes = config.model_dim, n_layers, layer.heads
    is_long = kind == "gemma3_text" and sizes in _LONG
    return {
        "model_type": kind, **_COMMON, **_TOKENS, "eos_token_id": _ends(config), "head_dim": layer.qkv_dim,
        ("hidden_act" if kind == "gemma" else "hidden_activation"): "gelu_pytorch_tanh", "hidden_size": config.model_dim,
        "intermediate_size": layer.ff_hidden_dim, "max_position_embeddings": _LONGEST if is_long else config.max_seq_len,
        "num_attention_heads": layer.heads, "num_hidden_layers": n_layers, "num_key_value_heads": layer.kv_heads,
        "tie_word_embeddings": True, "vocab_size": n_tokens, **_attention(config, layer, kind, path),
        **({"rope_theta": 10000.0} if kind != "gemma3_text" else
           {"rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling": _STRETCHED if is_long else None}),
    }  # fmt: skip


def _ends(config: ModelConfig) -> int | list[int]:
    """Tokens that end a text; the second only of a model that was trained on instructions."""
    both = config.wrapping in (INSTRUCTION, GEMMA3_IMAGES) and config.secondary_eos_id != config.eos_id
    return [config.eos_id, config.secondary_eos_id] if both else config.eos_id


def _attention(config: ModelConfig, layer: LayerConfig, kind: str, path: Path) -> dict[str, Any]:
    """Windows, caps and the scale of queries."""
    caps = {"attn_logit_softcapping": config.att_cap or None, "final_logit_softcapping": config.final_cap or None}
    windows, widest = config.attention_window_sizes, config.max_seq_len
    if len(windows) != len(config.layer_configs):
        raise BadInput(f"{path}: the configuration has {len(windows)} windows for {len(config.layer_configs)} layers")
    if config.query_scale not in (0, MODEL_WIDTH):
        raise BadInput(f"{path}: 'query_scale' is {config.query_scale}, known are 0 and 1")
    by_width = config.query_scale == MODEL_WIDTH or (config.model_dim, len(windows), layer.heads) == _BY_WIDTH
    scalar = config.model_dim / layer.heads if by_width else layer.qkv_dim
    if kind == "gemma":
        if any(caps.values()) or min(windows) < widest or scalar != layer.qkv_dim:
            raise BadInput(
                f"{path}: the layers are those of the first Gemma, which has neither soft caps nor windows nor another scale"
            )
        return {}
    types, window = _windows(windows, widest, _EVERY[kind], path)
    scaled = int(scalar) if scalar == int(scalar) else scalar
    return {**caps, "layer_types": types, "sliding_window": window, "query_pre_attn_scalar": scaled}


def _windows(windows: Sequence[int], widest: int, every: int, path: Path) -> tuple[list[str], int]:
    """The type of each layer and the window of those that have one.

    A window as long as the longest text does not count. Where that leaves open which layers have one, they are those of the family.
    """
    has_one = [(n + 1) % every != 0 for n in range(len(windows))]
    usual = {size for size, sliding in zip(windows, has_one, strict=True) if sliding}
    if len(usual) > 1 or any(size < widest for size, sliding in zip(windows, has_one, strict=True) if not sliding):
        has_one = [size < widest for size in windows]
        usual = {size for size, sliding in zip(windows, has_one, strict=True) if sliding}
    if len(usual) > 1:
        raise BadInput(
            f"{path}: layers have windows of {' and '.join(map(str, sorted(usual)))}, config.json has one for all"
        )
    types = ["sliding_attention" if sliding else "full_attention" for sliding in has_one]
    return types, next(iter(usual), widest)


def _tower(config: ModelConfig, path: Path) -> dict[str, Any]:
    vit = config.vit_config
    layer = _same(vit.layer_configs, "image layer", path)
    if vit.patch_width < 1 or (vit.image_size // vit.patch_width) ** 2 != vit.seq_len:
        raise BadInput(
            f"{path}: images of {vit.image_size} pixels in patches of {vit.patch_width} are not the {vit.seq_len} that the"
            " configuration says"
        )
    if layer.heads * layer.qkv_dim != vit.model_dim or layer.model_dim != vit.model_dim:
        raise BadInput(
            f"{path}: {layer.heads} heads of {layer.qkv_dim} are not the width of the image layers, {vit.model_dim}"
        )
    return {
        "attention_dropout": 0.0, "hidden_act": "gelu_pytorch_tanh", "hidden_size": vit.model_dim, "image_size": vit.image_size,
        "intermediate_size": layer.ff_hidden_dim, "layer_norm_eps": 1e-06, "model_type": "siglip_vision_model",
        "num_attention_heads": layer.heads, "num_channels": 3, "num_hidden_layers": len(vit.layer_configs),
        "patch_size": vit.patch_width, "vision_use_head": False,
    }  # fmt: skip


def image_processor(config: ModelConfig) -> dict[str, Any]:
    """preprocessor_config.json of a model with images, which gemma.cpp prepares as all of these models want them."""
    vit, is_third = config.vit_config, config.wrapping == GEMMA3_IMAGES
    side = vit.image_size // vit.patch_width // max(vit.pool_dim, 1)
    return {
        "image_processor_type": "Gemma3ImageProcessor" if is_third else "SiglipImageProcessor",
        "processor_class": "Gemma3Processor" if is_third else "PaliGemmaProcessor", "do_normalize": True, "do_rescale": True,
        "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "image_seq_length": side * side,
        "resample": 2 if is_third else 3, "rescale_factor": 1 / 255, "size": {"height": vit.image_size, "width": vit.image_size},
    }  # fmt: skip
