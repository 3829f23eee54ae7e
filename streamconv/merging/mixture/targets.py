"""The architectures that a mixture can have: tensor names and what config.json says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class MixtureTarget:
    """One architecture.

    Attributes
    ----------
    name : how recipes call it
    architecture, model_type : as in config.json
    inputs : values of ``model_type`` of the dense models
    fused : gate and up projections of all experts are one tensor, down projections another; else every expert has its own
    shared : what the shared expert is called, below ``mlp``; None: there is none
    shared_gate : name of the gate of the shared expert, or None
    config : completes a dense model's configuration, given the numbers of experts, of shared ones, and of those a token gets
    """

    name: str
    architecture: str
    model_type: str
    inputs: tuple[str, ...]
    config: Callable[[Config, int, int, int], None]
    fused: bool = False
    shared: str | None = None
    shared_gate: str | None = None


def _mixtral(config: Config, experts: int, shared: int, per_token: int) -> None:
    config.update(num_local_experts=experts, num_experts_per_tok=per_token, output_router_logits=False,
                  router_aux_loss_coef=0.001, sliding_window=None)  # fmt: skip


def _qwen2(config: Config, experts: int, shared: int, per_token: int) -> None:
    ffn = config.get("intermediate_size")
    config.update(num_experts=experts, num_experts_per_tok=per_token, moe_intermediate_size=ffn,
                  shared_expert_intermediate_size=ffn, decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True,
                  output_router_logits=False, router_aux_loss_coef=0.001)  # fmt: skip


def _qwen3(config: Config, experts: int, shared: int, per_token: int) -> None:
    config.update(num_experts=experts, num_experts_per_tok=per_token, moe_intermediate_size=config.get("intermediate_size"),
                  decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True, output_router_logits=False,
                  router_aux_loss_coef=0.001)  # fmt: skip


def _deepseek(config: Config, experts: int, shared: int, per_token: int) -> None:
    config.update(n_routed_experts=experts, n_shared_experts=shared or None, num_experts_per_tok=per_token,
                  moe_intermediate_size=config.get("intermediate_size"), moe_layer_freq=1, first_k_dense_replace=0,
                  norm_topk_prob=True, scoring_func="softmax", aux_loss_alpha=0.001, seq_aux=True)  # fmt: skip


_ALL = (
    MixtureTarget("mixtral", "MixtralForCausalLM", "mixtral", ("llama", "mistral"), _mixtral, fused=True),
    MixtureTarget("qwen2", "Qwen2MoeForCausalLM", "qwen2_moe", ("qwen2",), _qwen2, shared="shared_expert",
           shared_gate="shared_expert_gate"),
    MixtureTarget("qwen3", "Qwen3MoeForCausalLM", "qwen3_moe", ("qwen3",), _qwen3),
    MixtureTarget("deepseek", "DeepseekForCausalLM", "deepseek", ("llama", "mistral"), _deepseek, shared="shared_experts"),
)  # fmt: skip

#: by the name in recipes
TARGETS: Mapping[str, MixtureTarget] = {target.name: target for target in _ALL}


def default_target(model_type: str, has_shared: bool) -> MixtureTarget | None:
    """The architecture for dense models of ``model_type``; None where there is none."""
    fitting = [target for target in _ALL if model_type in target.inputs]
    return next((t for t in fitting if (t.shared is not None) == has_shared), fitting[0] if fitting else None)
