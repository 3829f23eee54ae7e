"""Nemotron H: each block is a state space, attention, a network, or experts; of these the newer ones predict a further token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, vocab_size
from ..rules import experts
from ..tokenizers import BPE
from . import _mamba2
from ._stated import flags, numbers, reals
from .llama import interleave_k, interleave_q

_KINDS = {"mamba": "M", "linear_attention": "M", "attention": "*", "full_attention": "*", "moe": "E", "mlp": "-"}
_BLOCKS = "block_configs", "layers_block_type", "hybrid_override_pattern"
_EPSILON, _RMS = "layer_norm_epsilon", ("rms_norm_eps", "norm_eps")


def pattern(c: Config) -> str:
    """What each block is: M a state space, * attention, - a network, E experts."""
    blocks: Any = c.get("block_configs")
    words = c.get("layers_block_type")
    if isinstance(blocks, list):
        words = [b.get("block_type") for b in blocks if isinstance(b, dict)]
    found = "".join(_KINDS.get(str(word), "?") for word in words or ()) or str(c.get("hybrid_override_pattern") or "")
    if not found or set(found) - set("M*-E"):
        raise BadInput(f"{c.place} does not say what each block is, in words that are known")
    return found


def of_mixtures(**defaults: Any) -> dict[str, Any]:
    """Class defaults that the older models without experts, which are read as they stand, do not have."""
    return {key: lambda c, v=v: v if c.get(*_BLOCKS) and "E" in pattern(c) else None for key, v in defaults.items()}


def further(c: Config) -> range:
    """The block behind the last that predicts a further token, which only mixtures have."""
    names, n = c.checkpoint.tensors if c.checkpoint is not None else {}, len(pattern(c))
    is_there = not names or any(name.startswith("mtp.") for name in names)
    stated = c.get("num_nextn_predict_layers") == 1 and "E" in pattern(c) and not c.get("block_configs")
    return range(n, n + int(stated and is_there))


def per_block(c: Config, name: str, kind: str) -> list[int]:
    """``name`` of each block of ``kind``, 0 of others."""
    blocks = c.get("block_configs")
    own = [b.get(name) for b in blocks] if isinstance(blocks, list) else [None] * len(pattern(c))
    return [(replace(c, values={name: n}) if n is not None else c).integer(name) if k == kind else 0
            for n, k in zip(own, pattern(c), strict=True)]  # fmt: skip


def keys(m: Metadata, a: str, c: Config) -> None:
    """What each block is, and sizes of state spaces."""
    kinds, more = pattern(c), 0 if c.further == "left out" else len(further(c))
    width = c.integer("mamba_head_dim") * c.integer("mamba_num_heads")
    m.u32(f"{a}.block_count", len(kinds) + more)
    if more:
        m.u32(f"{a}.nextn_predict_layers", more)
    head = c.integer("head_dim", "attention_head_dim") if c.get("head_dim", "attention_head_dim") else c.head_dim
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        m.u32(f"{a}.{key}", head)
    m.u32(f"{a}.ssm.inner_size", width)
    kv = [c.n_kv_heads if k == "*" else 0 for k in kinds] + [c.n_kv_heads] * more
    m.array(f"{a}.attention.head_count_kv", "INT32", kv)
    m.boolean(f"{a}.rope.scaling.finetuned", False)
    if "M" in kinds:
        m.u32(f"{a}.context_length", 2**20)
    if c.get(*_RMS) is not None:  # runtimes take the other where there is no such key
        m.f32(f"{a}.attention.layer_norm_rms_epsilon", c.real(_EPSILON, *_RMS))
    if "E" not in kinds:
        m.array(f"{a}.feed_forward_length", "INT32", per_block(c, "intermediate_size", "-"))
        return
    mixed = per_block(c, "moe_intermediate_size", "E")
    m.array(f"{a}.feed_forward_length", "INT32", mixed + ([c.integer("moe_intermediate_size")] if more else []))
    if c.get("block_configs"):
        m.array(f"{a}.expert_feed_forward_length", "INT32", mixed)
        m.array(f"{a}.expert_used_count", "INT32", per_block(c, "num_experts_per_tok", "E"))


def spelled(name: str, c: Config) -> str:
    """``name`` under ``backbone``, with the two parts of the block that predicts as one behind the last."""
    if name.startswith("mtp."):
        block, part = len(pattern(c)), name.removeprefix("mtp.layers.0.").removeprefix("mtp.layers.1.")
        if not further(c):
            return name
        post = part.startswith("norm.") and ".1." in name
        name = f"backbone.layers.{block}.{'post_' if post else ''}{part}"
    return _mamba2.spelled("backbone." + name.removeprefix("model.") if name.startswith("model.") else name, c)


def meant(family: Family, c: Config) -> Family:
    """A mixture is another architecture; of puzzles no runtime drafts."""
    # the reference takes the router of that block for one of the first
    types = {f"blk.{n}.ffn_gate_inp.weight": "as the file" for n in further(c)}
    family = replace(family, types=types, further=None if c.get("block_configs") else family.further)
    return replace(family, arch="nemotron_h_moe") if "E" in pattern(c) else family


FAMILY = Family(
    arch="nemotron_h",
    architectures=("NemotronHForCausalLM", "NemotronHPuzzleForCausalLM"),
    tokenizer=BPE,
    variant=meant,
    classes={"nemotron_h": {
        "vocab_size": 131072, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 4096, "tie_word_embeddings": False, "intermediate_size": 21504, "mlp_hidden_act": "relu2",
        "ssm_state_size": 128, "mamba_num_heads": 128, "mamba_head_dim": 64, "n_groups": 8, "conv_kernel": 4,
        "layer_norm_epsilon": 1e-5, **of_mixtures(
            n_routed_experts=8, n_shared_experts=1, moe_intermediate_size=7688, moe_shared_expert_intermediate_size=7688,
            num_experts_per_tok=2, routed_scaling_factor=1.0, n_group=1, topk_group=1, norm_topk_prob=True,
        ),
    }},
    n_tokens=lambda c: -(-c.integer("vocab_size") // 8) * 8,
    further=further,
    assumes={"num_nextn_predict_layers": Assumed(lambda _, c: (len(further(c)),), "the output has none of them"),
             "mlp_hidden_act": Assumed(("relu2",)), "mamba_hidden_act": Assumed(("silu",)),
             "attention_bias": Assumed((False,)), "hidden_act": Assumed(("relu2",)),
             **dict.fromkeys(_RMS, Assumed(lambda _, c: (c.get(_EPSILON, *_RMS),), f"norms have {_EPSILON}"))},
    idle=(
        "expand", "chunk_size", "use_conv_bias", "residual_in_fp32", "mtp_*", "num_hidden_layers", "rescale_*", "time_step_*",
        "mamba_*", "use_mamba_kernels", "num_logits_to_keep", "sliding_window", "moe_shared_expert_overlap", "conv_kernel",
    ),
    keys=(
        *BASE, vocab_size,
        numbers({
            "ssm.conv_kernel": "conv_kernel", "ssm.state_size": "ssm_state_size", "ssm.group_count": ("n_groups", "mamba_n_groups"),
            "ssm.time_step_rank": "mamba_num_heads", "expert_feed_forward_length": "moe_intermediate_size",
            "expert_shared_feed_forward_length": "moe_shared_expert_intermediate_size", "expert_shared_count": "n_shared_experts",
            "moe_latent_size": "moe_latent_size",
        }),
        reals({"expert_weights_scale": "routed_scaling_factor"}), flags({"expert_weights_norm": "norm_topk_prob"}), keys,
    ),
    spelled=spelled,
    drops={"mtp.*": "runtimes predict one token at a time with this model"},
    names={
        "backbone.layers.{bid}.post_norm": "blk.{bid}.post_attention_norm",
        "backbone.layers.{bid}.final_layernorm": "blk.{bid}.nextn.shared_head_norm",
        **{f"backbone.layers.{{bid}}.{part}": f"blk.{{bid}}.nextn.{part}" for part in ("eh_proj", "enorm", "hnorm")},
        **{f"backbone.layers.{{bid}}.mixer.fc{n}_latent_proj": f"blk.{{bid}}.ffn_latent_{d}" for n, d in ((1, "down"), (2, "up"))},
    },
    rules=(experts("backbone.layers.{bid}.mixer.experts", down="down_proj", up="up_proj"),),
    transforms={**_mamba2.parts(lambda c: c.integer("n_groups", "mamba_n_groups")), "attn_q": interleave_q, "attn_k": interleave_k},
)  # fmt: skip
