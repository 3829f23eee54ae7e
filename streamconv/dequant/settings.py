"""What the section of config.json may say: every key is one that a format reads, or one that changes no weight, or is refused.

An unknown key may turn the stored matrices round, permute or scale them, and the only trace of it is gone once the
section is removed. So there is a list of the keys that are understood, not one of those that are dangerous.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..sources.naming import shown
from .scheme import Scheme, groups_of
from .transforms import check_transforms

#: of any method: how the model was made, which modules were left alone, and what concerns activations and caches only
_COMMON = frozenset({
    "quant_method", "quantization_method", "method", "version", "producer", "provider", "meta", "model_name", "model_name_or_path",
    "model_file_base_name", "base_model", "torch_dtype", "dtype", "compute_dtype", "tokenizer", "dataset", "seqlen", "model_seqlen",
    "nsamples", "num_samples", "batch_size", "iters", "seed", "device", "backend", "pad_token_id", "max_input_length",
    "modules_to_not_convert", "ignore", "ignored_layers", "ignored_modules", "exclude_modules", "exclude", "skip_modules",
    "modules_in_block_to_quantize", "block_name_to_quantize", "to_quant_block_names", "quant_block_list",
    "module_name_preceding_first_block", "kv_cache_scheme", "kv_cache_quant_algo", "kv_cache_dtype", "activation_scheme",
    "run_compressed", "dequantize", "use_exllama", "disable_exllama", "exllama_config", "offload_to_disk", "offload_to_disk_path",
})  # fmt: skip
_AUTO_ROUND = frozenset({
    "packing_format", "bits", "group_size", "sym", "data_type", "act_bits", "act_data_type", "act_group_size", "act_sym",
    "act_dynamic", "amp", "enable_minmax_tuning", "enable_norm_bias_tuning", "enable_quanted_input", "enable_alg_ext",
    "gradient_accumulate_steps", "lr", "lr_scheduler", "low_gpu_mem_usage", "low_cpu_mem_usage", "minmax_lr", "scale_dtype",
    "supported_types", "static_attention_dtype", "static_kv_dtype", "static_attention_granularity", "static_kv_granularity",
    "extra_config", "checkpoint_format", "not_use_best_mse", "dynamic_max_gap", "autoround_format", "damp_percent", "desc_act",
    "true_sequential", "quant_lm_head", "n_samples", "train_bs", "use_quant_input", "enable_torch_compile",
    "momentum", "sampler", "zero_point", "config_groups", "format", "weight_block_size",
})  # fmt: skip
#: of a group of modules, and of its weights
_GROUP = frozenset({
    "weights", "input_activations", "output_activations", "targets", "format", "has_zero_point", "pre_quant_scale", "lora_rank",
    "quant_algo", "ignore",
})  # fmt: skip
_WEIGHTS = frozenset({
    "num_bits", "type", "symmetric", "strategy", "group_size", "block_structure", "dynamic", "actorder", "scale_dtype", "zp_dtype",
    "observer", "observer_kwargs", "is_mx",
})  # fmt: skip
#: keys that say that stored weights are not those of the layers, whatever they are stored as
_TURNING = re.compile(r"rotat|hadamard|transform|spinquant|quarot|smooth|permut|pre_quant_scale")


def check_settings(scheme: Scheme, where: Path, known: Collection[str]) -> None:
    """Refuse what the section says and is not understood.

    Parameters
    ----------
    known : keys that the format of the scheme reads, or that change no weight

    Raises
    ------
    BadInput : such a key, by its name
    """
    check_transforms(scheme.values.get("transform_config"), where)
    allowed = {*_COMMON, "transform_config", *known, *(_AUTO_ROUND if scheme.said == "auto-round" else ())}
    _check(scheme.values, allowed, where, "")
    for group in groups_of(scheme.values):
        _check(group, _GROUP, where, "config_groups: ")
        weights = group.get("weights")
        if isinstance(weights, Mapping):
            _check(weights, _WEIGHTS, where, "config_groups: weights: ")
    extra = scheme.values.get("extra_config")
    for module, values in extra.items() if isinstance(extra, Mapping) else ():
        if isinstance(values, Mapping):
            _check(values, _AUTO_ROUND, where, f"extra_config: {shown(module)}: ")


def check_turning(scheme: Scheme, where: Path) -> None:
    """Refuse what a section says of plain weights that are not those of the layers.

    Raises
    ------
    BadInput : such a key, by its name
    """
    for key, value in scheme.values.items():
        if key == "quantization_mode" and value == "online":  # BitNet's layers round the stored weights while they run
            raise unknown_setting(where, key, value)
        if key == "transform_config":
            check_transforms(value, where)
        elif _TURNING.search(key.lower()) and _says_something(value):
            raise unknown_setting(where, key, value)


def unknown_setting(where: Path, key: str, value: object) -> BadInput:
    """The refusal of a key."""
    text = str(value)
    return BadInput(
        f"{where}: quantization_config: {key} is {shown(text if len(text) < 200 else text[:200] + '…')}, which is not understood:"
        " the stored weights may mean something else",
        "Use the checkpoint this one was converted from. If it changes no weight, remove the key from config.json.",
    )


def _check(values: Mapping[str, Any], known: Collection[str], where: Path, place: str) -> None:
    for key, value in values.items():
        if key.lstrip("_") not in known and not key.endswith("_version") and _says_something(value):
            raise unknown_setting(where, f"{place}{key}", value)


def _says_something(value: object) -> bool:
    """Whether a value is not empty, zero or off; a mapping of such is neither."""
    if isinstance(value, Mapping):
        return any(map(_says_something, value.values()))
    return bool(value)
