"""What a model states, and whether anything of it would be passed over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadInput
from ..metadata import Metadata
from ..rows import Rows

#: keys that change nothing here, or say what shapes say too
_IDLE = frozenset((
    "context_length", "vocab_size", "pooling_type", "feed_forward_length", "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "expert_shared_count", "leading_dense_block_count", "tensor_data_layout", "attention.q_lora_rank", "n_deepstack_layers",
    "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "full_attention_interval", "attention.recurrent_layers",
    "use_parallel_residual", "interleave_moe_layer_step", "decoder_sparse_step", "attention.sliding_window",
    "rope.scaling.alpha", "rope.freq_base_swa", "attention.key_length_swa", "attention.value_length_swa",
    "rope.dimension_count_swa",
    "rope.dimension_count", "rope.dimension_sections", "rope.local_freq_base", "rope.freq_base",
    "attn_logit_softcapping", "deepstack_mapping",
    "attention.key_length", "attention.value_length", "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor",
    "expert_group_count", "expert_group_used_count", "expert_weights_norm", "expert_weights_scale", "expert_gating_func",
    "expert_used_count", "attention.head_count", "attention.head_count_kv", "embedding_length_per_layer_input",
    "router_logit_softcapping", "attention.indexer.head_count", "attention.indexer.key_length", "attention.indexer.types",
    "attention.indexer.local_blocks",     "moe_every_n_layers",
    "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count", "shortconv.l_cache",
))  # fmt: skip
#: tensors of the whole model
_OF_MODEL = frozenset((
    "token_embd.weight", "position_embd.weight", "token_embd_norm.weight", "token_embd_norm.bias", "output.weight", "output.bias",
    "output.scale", "output_norm.weight", "output_norm.bias", "rope_freqs.weight", "rope_factors_long.weight",
    "rope_factors_short.weight", "altup_proj.weight", "altup_unembd_proj.weight", "per_layer_token_embd.weight",
    "per_layer_model_proj.weight", "per_layer_proj_norm.weight",
))  # fmt: skip
#: weights of a block that are multiplied with, which may have a bias and a scale
_PRODUCTS = (
    "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "attn_gate", "attn_q_a", "attn_q_b", "attn_kv_a_mqa", "attn_kv_b",
    "attn_k_b", "attn_v_b", "ffn_gate", "ffn_up", "ffn_down", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps",
    "ffn_gate_up_exps", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", "ffn_gate_inp_shexp", "ssm_in", "ssm_ba", "ssm_alpha",
    "ssm_beta", "ssm_out", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer.q_proj", "indexer.k_proj",
    "ssm_x", "ssm_dt",
    "ssm_f_a", "ssm_f_b", "ssm_g_a", "ssm_g_b",
    "shortconv.in_proj", "shortconv.out_proj", "ffn_latent_down", "ffn_latent_up",
    "laurel_l", "laurel_r", "inp_gate", "proj", "altup_router", "altup_predict_coef", "altup_correct_coef",
)  # fmt: skip
_NORMS = (
    "attn_norm", "attn_norm_2", "attn_q_norm", "attn_k_norm", "attn_q_a_norm", "attn_kv_a_norm", "post_attention_norm", "ffn_norm",
    "post_ffw_norm", "post_ffw_norm_1", "post_ffw_norm_2", "pre_ffw_norm_2", "post_norm", "laurel_post_norm", "altup_router_norm",
    "ssm_norm", "ssm_dt_norm", "ssm_b_norm", "ssm_c_norm", "indexer.k_norm", "indexer.q_norm",
)  # fmt: skip
_OF_BLOCK = frozenset((
    *(f"{name}.{part}" for name in _PRODUCTS for part in ("weight", "bias", "scale")),
    *(f"{name}.{part}" for name in _NORMS for part in ("weight", "bias")), "exp_probs_b.bias", "attn_sinks.weight", "ssm_a",
    "ssm_d", "ssm_dt.bias", "ssm_conv1d.weight", "ssm_conv1d.bias",
    *(f"ssm_conv1d_{part}.weight" for part in "qkv"), "shortconv.conv.weight", "altup_correct_scale.weight",
    "layer_output_scale.weight",
))  # fmt: skip
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")


class Keys:
    """The key/values under an architecture's name; which of them were asked for is remembered."""

    def __init__(self, metadata: Metadata, arch: str, where: str) -> None:
        self.metadata, self.arch, self.where = metadata, arch, where
        self.asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return f"{self.arch}.{key}" in self.metadata

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key`` as stored."""
        self.asked.add(key)
        return self.metadata.get(f"{self.arch}.{key}", default)

    def pass_over(self, start: str) -> None:
        """Keys that begin with ``start`` change nothing in this model."""
        names = (
            key.removeprefix(f"{self.arch}.") for key in self.metadata.values if key.startswith(f"{self.arch}.{start}")
        )
        self.asked.update(names)

    def real(self, key: str, default: float | None = None) -> float:
        """The number ``key``; BadInput where it is needed and not there, or is no number."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            what = "is not there" if value is None else f"is {value!r:.40}, which is not a number"
            raise BadInput(f"{self.where}: the key {self.arch}.{key} {what}")
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        """The whole number ``key``."""
        return int(self.real(key, default))

    def each(self, key: str, layer: int, default: int | None = None) -> int:
        """The whole number ``key`` of a layer, which may be the same for all."""
        value = self.get(key)
        if isinstance(value, Sequence) and not isinstance(value, str):
            if layer >= len(value):
                raise BadInput(f"{self.where}: the key {self.arch}.{key} has no value for block {layer}")
            return int(value[layer])
        return self.count(key, default)

    def each_real(self, key: str, layer: int) -> float:
        """The number ``key`` of a layer, which may be the same for all; 0 where nothing is said."""
        value = self.get(key, 0.0)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return float(value[layer]) if layer < len(value) else 0.0
        return self.real(key, 0.0)

    def of_layer(self, key: str, layer: int) -> float:
        """The number of a layer under the ``key``, which has no architecture in its name."""
        value = self.metadata.get(key)
        if not isinstance(value, Sequence) or isinstance(value, str) or layer >= len(value):
            raise BadInput(f"{self.where}: the key {key} has no value for block {layer}")
        return float(value[layer])

    def original_length(self) -> int:
        """The context that positions were trained for before they were scaled."""
        return self.count("rope.scaling.original_context_length", self.count("context_length", 0))


def refuse_strangers(rows: Mapping[str, Rows], keys: Keys, n_layers: int) -> None:
    """BadInput where a key or a tensor says something that is not computed here."""
    for key, value in keys.metadata.items():
        if key.startswith(f"{keys.arch}."):
            name = key.removeprefix(f"{keys.arch}.")
            says = value.value not in (0, False, None) if not hasattr(value.value, "__len__") else any(value.value)
            if name not in keys.asked and name not in _IDLE and says:
                raise BadInput(f"{keys.where}: the key {key} says something that is not computed here")
    for name in rows:
        block = _BLOCK.fullmatch(name)
        if block is None and name not in _OF_MODEL:
            raise BadInput(f"{keys.where}: the tensor {name!r} takes part in something that is not computed here")
        if block is not None and int(block[1]) < n_layers and block[2] not in _OF_BLOCK:
            raise BadInput(f"{keys.where}: the tensor {name!r} takes part in something that is not computed here")
    if "token_embd.weight" not in rows:
        raise BadInput(f"{keys.where}: there is no tensor 'token_embd.weight'")
