"""Granite 4: layers of Mamba 2 among layers of attention, experts with one that every token uses; the reference reads raw keys."""

from __future__ import annotations

import math
from dataclasses import replace

from ...errors import BadInput
from ...kit import NEGATIVE_EXP, Mapped, Reshaped, squeezed
from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, key_value_length, vocab_size
from ..names import plain_name
from ..rules import Rule, as_they_are, halves
from ..tokenizers import TokenizerRule
from .llama import interleave_k, interleave_q


def attends(c: Config) -> list[bool]:
    """Which layers have attention; the others have a state space."""
    if c.layer_types:
        return [kind in ("attention", "full_attention") for kind in c.layer_types]
    if isinstance(listed := c.get("attn_layer_indices"), list):
        return [n in listed for n in range(c.n_layers)]
    if not c.get("attn_layer_period"):
        raise BadInput("config.json does not say which layers have attention")
    return [n % c.integer("attn_layer_period") == c.integer("attn_layer_offset") for n in range(c.n_layers)]


def rotates(c: Config) -> bool:
    """Whether attention knows positions."""
    return all(attends(c)) or "Bamba" in str(c.raw.get("architectures"))


def rotated(c: Config) -> int:
    """Rotated dimensions of a head."""
    return c.integer("attn_rotary_emb") if c.get("attn_rotary_emb") else c.head_dim


def injections(m: Metadata, a: str, c: Config) -> None:
    """Which layer gets the output of which projector, of which the first feeds the embeddings instead."""
    pairs, targets = c.get("deepstack_layer_map"), c.get("spatial_target_layers")
    if not isinstance(pairs, list):
        return
    layers = sorted([*(pair[-1] for pair in pairs), *(targets or ())])
    mapping = [-1] * c.n_layers
    for number, layer in enumerate(layers):
        if number and 0 <= layer < c.n_layers:
            mapping[layer] = number
    m.array(f"{a}.deepstack_mapping", "INT32", mapping)


def keys(m: Metadata, a: str, c: Config) -> None:
    """What the reference writes behind the common keys; some of those again, with other values."""
    layers = attends(c)
    m.u32(f"{a}.rope.dimension_count", rotated(c))
    for key, name in (
        ("attention.scale", "attention_multiplier"), ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"), ("logit_scale", "logits_scaling"),
    ):  # fmt: skip
        if c.get(name):
            m.f32(f"{a}.{key}", c.real(name))
    if c.get("shared_intermediate_size"):
        m.u32(f"{a}.expert_shared_feed_forward_length", c.integer("shared_intermediate_size"))
    m.u32(f"{a}.ssm.conv_kernel", c.integer("mamba_d_conv"))
    m.u32(f"{a}.ssm.state_size", c.integer("mamba_d_state"))
    m.u32(f"{a}.ssm.group_count", c.integer("mamba_n_groups"))
    m.u32(f"{a}.ssm.inner_size", c.integer("mamba_expand") * c.hidden)
    m.u32(f"{a}.ssm.time_step_rank", c.integer("mamba_n_heads"))
    m.array(f"{a}.attention.head_count_kv", "INT32", [c.n_kv_heads if attention else 0 for attention in layers])
    m.boolean(f"{a}.rope.scaling.finetuned", rotates(c))
    if not rotates(c):
        m.u32(f"{a}.context_length", 2**20)


def fused(source: str, *targets: str, when: bool | None = None) -> Rule:
    """A matrix of every block, cut into as many as it becomes; ``when`` tells whether there are experts."""
    names, sources = (f"blk.{{bid}}.{name}.weight" for name in targets), (f"model.layers.{{bid}}.{source}.weight",)
    rule = Rule(tuple(names), sources, halves if len(targets) > 1 else as_they_are)
    return rule if when is None else rule._replace(when=lambda c, _: bool(c.n_experts) is when)


FAMILY = Family(
    arch="granitehybrid",
    architectures=("GraniteMoeHybridForCausalLM", "BambaForCausalLM"),
    tokenizer=TokenizerRule(("spm", "bpe")),
    variant=lambda family, c: replace(family, arch="granitemoe" if c.get("num_experts_per_tok") else "granite")
    if all(attends(c)) else family,  # without any state space it is another architecture
    assumes={
        **{key: GATED_SILU[key] for key in ("hidden_act", "rope_type")}, "normalization_function": Assumed(("rmsnorm",)),
        "position_embedding_type": Assumed(lambda _, c: ("rope" if rotates(c) else "nope",), "runtimes apply no RoPE in hybrids"),
        "partial_rotary_factor": Assumed(lambda _, c: (rotated(c) / max(c.head_dim, 1),), "the output says attn_rotary_emb"),
        "time_step_limit": Assumed(([0.0, 1e9], [0.0, math.inf]), "runtimes do not limit time steps"),
    },
    idle=("mamba_chunk_size", "mamba_d_head", "num_logits_to_keep"),
    keys=(*(key for key in BASE if key is not key_value_length), vocab_size, injections, keys),
    drops={f"*.{kind}_projectors.*": "not part of the text model" for kind in ("layerwise", "spatial")},
    spelled=lambda name, _: plain_name(name).replace(".dt_bias", ".dt_proj.bias"),
    rules=(
        fused("block_sparse_moe.input_linear", "ffn_gate_exps", "ffn_up_exps"),
        fused("shared_mlp.input_linear", "ffn_gate_shexp", "ffn_up_shexp", when=True),
        fused("shared_mlp.input_linear", "ffn_gate", "ffn_up", when=False),
        fused("shared_mlp.output_linear", "ffn_down", when=False),
    ),
    transforms={
        "attn_q": interleave_q, "attn_k": interleave_k, "ssm_conv1d": lambda rows, _: squeezed(rows),
        "ssm_d": lambda rows, _: Reshaped(rows, (rows.shape[0], 1)),
        "ssm_a": lambda rows, _: Reshaped(Mapped(rows, NEGATIVE_EXP), (rows.shape[0], 1)),
        "ssm_norm": lambda rows, c: Reshaped(rows, (c.integer("mamba_n_groups"), rows.shape[0] // c.integer("mamba_n_groups"))),
    },
)  # fmt: skip
