"""config.json of a merge: that of the donor with the few keys changed that no longer hold.

For stacked layers everything that counts or lists layers follows the layers: an output layer takes the entry of the layer it
was made of.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import BadInput
from ..sources.hf_config import LAYERS_OF_ANY, text_section, ties_by_default

Section = dict[str, Any]
#: for every output layer the section of the config it comes from, and its number there
Origins = Sequence[tuple[Mapping[str, Any], int]]

#: lists with an entry for every layer
_PER_LAYER = re.compile(
    r"layer_types|layers_block_type|block_types?|no_rope_layers|moe_layer_freq|layer_config|attention_types|"
    r"num_(key_value|query|attention|kv)_heads(_per_layer)?|n_kv_heads|(moe_)?intermediate_size|ffn_multipliers|hybrid_override_pattern|"
    r"hybrid_layer_pattern|activation_sparsity_pattern|mlp_layer_types|attn_type_list|block_configs|compress_ratios|indexer_types|"
    r"is_moe_layer|gating_types|layer_rope_theta|moe_topk|num_shared_experts?|num_experts|(rope|sliding_window)_layout|"
    r"sparse_attention_freq|swiglu_limits(_shared)?|rope_theta|partial_rotary_factors|use_rope_layers"
)
#: texts with a letter for every layer
_LETTERS = re.compile(r"hybrid_override_pattern|layers_block_type")
#: lists of the numbers of some layers, and of such that count from 1
_NUMBERS = re.compile(
    r"(mlp_only|moe|dense|cross_attention|attention|full_attention|full_attn|kda|skip|kv_shared)_layers|\w*_(idxs|layer_idx|indices)"
)
_FROM_ONE = re.compile(r"(full_attn|kda)_layers")
#: how many layers come before the first mixture of experts
_DENSE_FIRST = "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"
#: keys that make every n-th layer another kind, where the layers' names or shapes tell
_PERIODS = ("decoder_sparse_step", "interleave_moe_layer_step", "attn_layer_period", "expert_layer_period",
            "full_attention_interval", "num_kv_shared_layers")  # fmt: skip
#: families whose code makes every n-th layer one of full attention where the config does not say
_DEFAULT_PERIODS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "gemma3n_text": 5, "gemma4_text": 6, "cohere2": 4, "gpt_oss": 2,
                    "qwen3_next": 4, "qwen3_5_text": 4, "qwen3_5_moe_text": 4}  # fmt: skip
_LINEAR = "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"
#: families whose code makes the last layer one of full attention, too
_LAST_IS_FULL = ("gemma4_text",)
_SLIDING, _FULL = "sliding_attention", "full_attention"


def restack(section: Section, origins: Origins, warnings: list[str]) -> None:
    """Change what counts or lists layers in ``section``, in place.

    Parameters
    ----------
    section : the donor's
    origins : where every output layer comes from; sections as they were before

    Raises
    ------
    BadInput : the new order of layers cannot be expressed
    """
    n = len(origins)
    before = dict(section)
    for key in LAYERS_OF_ANY:
        if type(section.get(key)) is int:
            section[key] = n
    _lists(section, origins, _count(before))
    _attention_kinds(section, before, origins, warnings)
    for key in _DENSE_FIRST:
        _dense_first(section, origins, key)
    for key in _PERIODS:
        if type(before.get(key)) is int and before[key] > 1 and [layer for _, layer in origins] != list(range(n)):
            warnings.append(f"config.json: {key} is {before[key]}, but layers have moved; check that it still applies")


def _lists(section: Section, origins: Origins, old: int | None) -> None:
    """Lists of ``section`` and of what is in it; ``old`` is how many layers there were. What is behind them in a list stays."""
    for key, value in section.items():
        if key == "per_layer_config" and isinstance(value, dict):
            parts = ((source.get(key) or {}).get(str(layer)) for source, layer in origins)
            section[key] = {str(i): part for i, part in enumerate(parts) if part is not None}
        elif isinstance(value, dict):
            inner = [(part if isinstance(part := source.get(key), Mapping) else {}, layer) for source, layer in origins]
            _lists(value, inner, old)
        elif _is_per_layer(key, value) and old is not None and len(value) >= old:
            entries = [_entry(source, key, layer) for source, layer in origins]
            section[key] = "".join(entries) + value[old:] if isinstance(value, str) else entries + value[old:]
        elif key == "moe_layers_enum" and isinstance(value, str):
            section[key] = ",".join(
                str(i) for i, (s, layer) in enumerate(origins) if str(layer) in str(s.get(key)).split(",")
            )
        elif isinstance(value, list) and value and _NUMBERS.fullmatch(key):
            first = 1 if _FROM_ONE.fullmatch(key) else 0
            section[key] = [i for i, (s, layer) in enumerate(origins, first) if layer + first in (s.get(key) or [])]


def _is_per_layer(key: str, value: Any) -> bool:
    return (isinstance(value, str) and _LETTERS.fullmatch(key) is not None) or (
        isinstance(value, list) and _PER_LAYER.fullmatch(key) is not None
    )


def _count(section: Mapping[str, Any]) -> int | None:
    return next((section[key] for key in LAYERS_OF_ANY if type(section.get(key)) is int), None)


def _entry(source: Mapping[str, Any], key: str, layer: int) -> Any:
    values = source.get(key)
    if not isinstance(values, (list, str)) or layer >= len(values):
        raise BadInput(f"config.json: {key!r} of one model has no entry for its layer {layer}, that of another has")
    return values[layer]


def _attention_kinds(section: Section, before: Mapping[str, Any], origins: Origins, warnings: list[str]) -> None:
    """``layer_types``, also where the config only implies them, and ``max_window_layers``."""
    if any(_kinds(source) for source, _ in origins):
        kinds = [(_kinds(source) or [_FULL] * (layer + 1))[layer] for source, layer in origins]
        section["layer_types"] = kinds + list(before.get("layer_types") or [])[_count(before) or len(kinds) :]
        rule = _rule(section)
        moved = [i for i, kind in enumerate(kinds) if rule is not None and kind != rule(i)]
        if moved:
            warnings.append(
                f"layer_types no longer follows the family's pattern in layers {', '.join(map(str, moved[:5]))}"
                f"{' …' if len(moved) > 5 else ''}; a runtime that does not read layer_types (llama.cpp) will use another "
                "kind of attention there"
            )
    window = before.get("max_window_layers")
    if type(window) is int:
        old = _count(before) or 0
        section["max_window_layers"] = len(origins) if window >= old else min(window, len(origins))


def _rule(section: Mapping[str, Any]) -> Callable[[int], str] | None:
    """The kind of attention of layer ``i`` that code derives from its number."""
    pattern = section.get("sliding_window_pattern", section.get("_sliding_window_pattern"))
    if isinstance(pattern, str) and pattern:
        return lambda i: _FULL if pattern[i % len(pattern)] == "G" else _SLIDING
    family = str(section.get("model_type"))
    other = "linear_attention" if family in _LINEAR else _SLIDING
    last = (_count(section) or 0) - 1 if family in _LAST_IS_FULL else -1
    if type(pattern) is not int:
        pattern = section.get("full_attention_interval", _DEFAULT_PERIODS.get(family))
    if type(pattern) is int and pattern > 0:
        return lambda i: _FULL if (i + 1) % pattern == 0 or i == last else other
    if section.get("use_sliding_window") and type(section.get("max_window_layers")) is int:
        return lambda i: _SLIDING if i >= section["max_window_layers"] else _FULL
    return None


def _kinds(section: Mapping[str, Any]) -> list[str] | None:
    """The kind of attention of every layer, stated or implied; None where there is one kind only."""
    stated = section.get("layer_types")
    if isinstance(stated, list):
        return stated
    rule, count = _rule(section), _count(section)
    return None if rule is None or count is None else [rule(i) for i in range(count)]


def _dense_first(section: Section, origins: Origins, key: str) -> None:
    """``key``: how many layers come before the first mixture of experts."""
    if type(section.get(key)) is not int:
        return
    dense = [layer < int(source.get(key, 0)) for source, layer in origins]
    section[key] = sum(dense)
    if True in dense[sum(dense) :]:
        raise BadInput(
            f"config.json: {key} can only say that the first layers are dense, here dense ones follow mixtures of experts",
            "Take the dense layers of one model, and only at the bottom.",
        )


def set_dtype(config: Section, name: str) -> None:
    """Say that the weights are ``name`` (``bfloat16`` …)."""
    keys = [key for key in ("dtype", "torch_dtype") if key in config]
    text = text_section(config)
    for section in {id(s): s for s in (config, text)}.values():
        assert isinstance(section, dict)
        for key in ("dtype", "torch_dtype"):
            if key in section:
                section[key] = name
    if not keys and (text is config or not any(key in text for key in ("dtype", "torch_dtype"))):
        config["torch_dtype"] = name


def set_everywhere(config: Section, key: str, value: Any) -> None:
    """Set ``key`` where it stands, at the root or in the section of the text model; at the root if it stands nowhere."""
    text = text_section(config)
    places = [section for section in (config, text) if key in section] or [text if text is not config else config]
    for section in places:
        assert isinstance(section, dict)
        section[key] = value


def untie(config: Section) -> None:
    """Say that the head is not the embedding, where the config or the family's default says it is."""
    text = text_section(config)
    sections = {id(s): s for s in (config, text)}.values()
    stated = [section for section in sections if "tie_word_embeddings" in section]
    for section in stated:
        assert isinstance(section, dict)
        section["tie_word_embeddings"] = False
    if not stated and ties_by_default(config):
        set_everywhere(config, "tie_word_embeddings", False)


def without_quantization(config: Section) -> None:
    """Forget how the source was quantized; the merge is not."""
    for section in (config, text_section(config)):
        assert isinstance(section, dict)
        section.pop("quantization_config", None)


def copied(config: Mapping[str, Any]) -> Section:
    """A copy that may be edited."""
    return copy.deepcopy(dict(config))
