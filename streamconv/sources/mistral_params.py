"""params.json of Mistral's own layout, said as config.json of the same model would say it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput
from .naming import shown

#: what ``architectures`` names: no class of transformers reads this layout
ARCHITECTURE = "MistralFormat"
#: without these there is no model
_NEEDED = ("dim", "n_layers", "n_heads", "hidden_dim", "norm_eps")
_KEYS = {
    "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads",
    "hidden_dim": "intermediate_size", "norm_eps": "rms_norm_eps", "tied_embeddings": "tie_word_embeddings",
    "activation": "hidden_act",
}  # fmt: skip
#: inside of ``moe``
_OF_EXPERTS = {
    "route_every_n": "moe_layer_freq", "first_k_dense_replace": "first_k_dense_replace",
    "num_experts_per_tok": "num_experts_per_tok", "num_experts": "n_routed_experts", "expert_hidden_dim": "moe_intermediate_size",
    "routed_scale": "routed_scaling_factor", "num_shared_experts": "n_shared_experts", "num_expert_groups": "n_group",
    "num_expert_groups_per_tok": "topk_group",
}  # fmt: skip
#: inside of ``moe``: how experts were spread over machines
_OF_TRAINING = ("expert_parallel", "expert_model_parallel")
#: inside of ``yarn``
_OF_YARN = {
    "factor": "factor", "original_max_position_embeddings": "original_max_position_embeddings", "beta": "beta_fast",
    "alpha": "beta_slow",
}  # fmt: skip
#: what Mistral's runtimes take where no context is said
_CONTEXT = 128_000


def read_params(params: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], list[str]]:
    """Keys of config.json, and what a user should know. What has no other name there keeps its own.

    Parameters
    ----------
    path : where ``params`` lie, for messages

    Raises
    ------
    BadInput : a key without which there is no model is missing, or says what is not known; names file and key
    """
    for key in _NEEDED:
        if not isinstance(params.get(key), int | float) or isinstance(params[key], bool):
            said = f"is {shown(repr(params[key]))}, not a number" if params.get(key) is not None else "is missing"
            raise BadInput(f"{path}: {key!r} {said}", "Fetch params.json of the model again.")
    sections = {key: _section(params, key, path) for key in ("moe", "yarn", "llama_4_scaling", "quantization")}
    plain = {key: value for key, value in params.items() if key not in (*sections, "max_seq_len", "rope_theta")}
    config = {_KEYS.get(key, key): value for key, value in plain.items()}
    config["architectures"] = [ARCHITECTURE]
    notes: list[str] = []
    if config.get("max_position_embeddings") is None:
        config["max_position_embeddings"] = params.get("max_seq_len") or _CONTEXT
        if not params.get("max_seq_len"):
            notes.append(f"{path} says no context length: {_CONTEXT} is written, as Mistral's runtimes take it")
    config |= _experts(sections["moe"])
    config["rope_parameters"] = _rope(params, sections, path, notes)
    if sections["quantization"]:
        config["quantization_config"] = _scheme(sections["quantization"], path)
    return config, notes


def _section(params: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    found = params.get(key)
    if not isinstance(found, Mapping | None):
        raise BadInput(f"{path}: {key!r} is {shown(repr(found))}, not an object")
    return found or {}


def _experts(moe: Mapping[str, Any]) -> dict[str, Any]:
    """What a mixture's config.json says; its router is DeepSeek's with softmax."""
    if not moe:
        return {}
    found = {_OF_EXPERTS.get(key, f"moe.{key}"): value for key, value in moe.items() if key not in _OF_TRAINING}
    return {**found, "scoring_func": "softmax", "norm_topk_prob": True}


def _rope(
    params: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]], path: Path, notes: list[str]
) -> dict[str, Any]:
    """RoPE as Ministral's config.json has it."""
    yarn, sharper = sections["yarn"], sections["llama_4_scaling"]
    rope = {"rope_type": "yarn" if yarn else "default", "rope_theta": params.get("rope_theta")}
    if yarn:
        for key in _OF_YARN:
            if not isinstance(yarn.get(key), int | float):
                raise BadInput(f"{path}: 'yarn' has no number {key!r}", "Fetch params.json of the model again.")
        rope |= {name: yarn[key] for key, name in _OF_YARN.items()}
        rope["mscale_all_dim"] = 0.0 if yarn.get("apply_scale") else 1.0
        notes += [
            f"{path}: 'yarn' says {shown(key)}, which is not known" for key in yarn.keys() - {*_OF_YARN, "apply_scale"}
        ]
    if sharper:
        if not isinstance(sharper.get("beta"), int | float):
            raise BadInput(f"{path}: 'llama_4_scaling' has no number 'beta'", "Fetch params.json of the model again.")
        rope["llama_4_scaling_beta"] = sharper["beta"]
        start = sharper.get("original_max_position_embeddings")
        runtimes = yarn.get("original_max_position_embeddings")
        if start is not None and start != runtimes:
            notes.append(
                f"{path}: 'llama_4_scaling' begins at {start} tokens, runtimes begin where yarn does"
                + (f", at {runtimes}" if runtimes else "")
            )
    return rope


def _scheme(section: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """``quantization_config`` of what was trained or saved in 8-bit floats; other tools' sections have its form already."""
    if "quant_method" in section or "config_groups" in section:
        return dict(section)
    kind = section.get("qformat_weight")
    if kind != "fp8_e4m3":
        raise BadInput(
            f"{path}: 'qformat_weight' is {shown(repr(kind))}, known is 'fp8_e4m3'",
            "Use the checkpoint it was made from.",
        )
    return {"quant_method": "fp8", "activation_scheme": "static"}
