"""Hyper-parameter keys ``{arch}.*``: one function per key, put together by the family files.

A key function writes what the configuration supports and nothing else, so a family that lacks a parameter needs no
exception. ``BASE`` is the reference converter's common set in its order.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from ..errors import BadInput, InputMissing
from ..metadata import Metadata
from .config import EXPERTS, HEADS, KV_HEADS, Config

#: (metadata to fill, GGUF architecture, configuration)
Key = Callable[[Metadata, str, Config], None]


def block_count(m: Metadata, a: str, c: Config) -> None:
    """Number of blocks."""
    m.u32(f"{a}.block_count", c.n_layers)


def context_length(m: Metadata, a: str, c: Config) -> None:
    """Longest context the model was made for."""
    names = ("max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length", "model_max_length")
    if c.get(*names) is not None:
        m.u32(f"{a}.context_length", c.integer(*names))


def embedding_length(m: Metadata, a: str, c: Config) -> None:
    """Width of the residual stream."""
    m.u32(f"{a}.embedding_length", c.hidden)


def feed_forward_length(m: Metadata, a: str, c: Config) -> None:
    """Width of the feed-forward network."""
    names = "intermediate_size", "n_inner", "hidden_dim"
    if c.get(*names) is not None:
        m.u32(f"{a}.feed_forward_length", c.integer(*names))


def head_count(m: Metadata, a: str, c: Config) -> None:
    """Attention heads."""
    if c.get(*HEADS) is not None:
        m.u32(f"{a}.attention.head_count", c.n_heads)


def head_count_kv(m: Metadata, a: str, c: Config) -> None:
    """Key/value heads; without a key where a file that is read as it stands does not say how many."""
    if c.get(*HEADS) is not None and (c.defaults or c.get(*KV_HEADS) is not None):
        counted_kv_heads(m, a, c)


def counted_kv_heads(m: Metadata, a: str, c: Config) -> None:
    """The same with a key in any case: as many as heads."""
    m.u32(f"{a}.attention.head_count_kv", c.n_kv_heads)


def causal(m: Metadata, a: str, c: Config) -> None:
    """Only written for models that look both ways."""
    if c.get("is_causal") is False:
        m.boolean(f"{a}.attention.causal", False)


def rope_scaling(m: Metadata, a: str, c: Config) -> None:
    """Linear, yarn and longrope scaling; llama3 scaling becomes a tensor instead, dynamic scaling has no key."""
    rope = c.rope
    kind = str(rope.get("rope_type", "default")).lower()
    if kind == "linear":
        m.string(f"{a}.rope.scaling.type", "linear")
        m.f32(f"{a}.rope.scaling.factor", _number(c, "factor"))
    elif kind == "yarn":
        m.string(f"{a}.rope.scaling.type", "yarn")
        m.f32(f"{a}.rope.scaling.factor", _number(c, "factor"))
        m.u32(f"{a}.rope.scaling.original_context_length", int(_number(c, "original_max_position_embeddings")))
        for key, names in (
            ("yarn_ext_factor", ("extrapolation_factor",)),
            ("yarn_attn_factor", ("attention_factor", "attn_factor")),
            ("yarn_beta_fast", ("beta_fast",)),
            ("yarn_beta_slow", ("beta_slow",)),
        ):
            given = [n for n in names if rope.get(n) is not None]
            if given:
                m.f32(f"{a}.rope.scaling.{key}", _number(c, given[0]))
    elif kind in ("su", "longrope"):
        m.string(f"{a}.rope.scaling.type", "longrope")
    elif kind not in ("default", "dynamic", "llama3"):
        raise BadInput(
            f"{c.place}: rope_type {kind!r} is not known", "Supported: default, linear, yarn, longrope, llama3."
        )


def _number(c: Config, name: str, local: bool = False) -> float:
    value = (c.rope_local if local else c.rope).get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"{c.place}: the RoPE scaling has no number {name!r}")
    return float(value)


def rope_sections(m: Metadata, a: str, c: Config) -> None:
    """Sections of multimodal RoPE, four numbers."""
    sections = c.rope.get("mrope_section")
    if isinstance(sections, list):
        m.array(f"{a}.rope.dimension_sections", "INT32", (sections + [0] * 4)[:4])


def rope_freq_base(m: Metadata, a: str, c: Config) -> None:
    """RoPE base of full attention."""
    if c.rope.get("rope_theta") is not None:
        m.f32(f"{a}.rope.freq_base", _number(c, "rope_theta"))


def rope_freq_base_swa(m: Metadata, a: str, c: Config) -> None:
    """RoPE base of sliding-window layers, where it is another one."""
    if c.rope_local.get("rope_theta") is not None:
        m.f32(f"{a}.rope.freq_base_swa", _number(c, "rope_theta", local=True))


def rms_epsilon(m: Metadata, a: str, c: Config) -> None:
    """Epsilon of RMS norms."""
    if c.get("rms_norm_eps", "norm_eps") is not None:
        m.f32(f"{a}.attention.layer_norm_rms_epsilon", c.real("rms_norm_eps", "norm_eps"))


def layer_norm_epsilon(m: Metadata, a: str, c: Config) -> None:
    """Epsilon of layer norms."""
    names = ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
    if c.get(*names) is not None:
        m.f32(f"{a}.attention.layer_norm_epsilon", c.real(*names))


#: how a router makes weights of its scores -> the number that runtimes know it by
_GATING = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}


def expert_counts(m: Metadata, a: str, c: Config) -> None:
    """Experts, how many a token uses, of how many groups, and what makes weights of the router's scores."""
    for key, names in (
        ("expert_count", EXPERTS),
        ("expert_used_count", ("num_experts_per_tok", "num_experts_per_token", "top_k_experts")),
        ("expert_group_count", ("n_group",)),
        ("expert_group_used_count", ("topk_group",)),
    ):
        if c.get(*names) is not None:
            m.u32(f"{a}.{key}", c.integer(*names))
    gating = c.get(
        "scoring_func", "score_function", "score_func", "moe_router_activation", "moe_router_activation_func",
        "expert_selection_fn",
    )  # fmt: skip
    if gating is not None:
        if gating not in _GATING:
            raise BadInput(f"{c.place}: routers with {gating!r} are not known", f"Supported: {', '.join(_GATING)}.")
        m.u32(f"{a}.expert_gating_func", _GATING[gating])


def expert_feed_forward_length(m: Metadata, a: str, c: Config) -> None:
    """Width of the feed-forward network of an expert, and of those that every token uses."""
    for key, name in (
        ("expert_feed_forward_length", "moe_intermediate_size"),
        ("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
    ):
        if c.get(name) is not None:
            m.u32(f"{a}.{key}", c.integer(name))


_POOLING = {"mean": 1, "cls": 2, "lasttoken": 3}


def pooling_type(m: Metadata, a: str, c: Config) -> None:
    """How the tokens of a text become one vector, where the files of sentence-transformers say it."""
    kinds = [module for module in c.side_list("modules.json") if isinstance(module, dict)]
    path = next((str(k.get("path", "")) for k in kinds if str(k.get("type", "")).endswith("Pooling")), None)
    if path is None:
        return
    name = posixpath.normpath(posixpath.join(path, "config.json"))
    if name.startswith(("../", "/")):
        raise BadInput(f"{c.folder}/modules.json: the path {path!r} leads outside the checkpoint")
    stated = c.raw if name == "config.json" else c.side(name)
    if stated is None:
        raise InputMissing(f"{c.folder} has no {name}, which modules.json names", "Copy it from the model's page.")
    modes = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "lasttoken": "pooling_mode_lasttoken"}
    mode = next((mode for mode, key in modes.items() if stated.get(key)), stated.get("pooling_mode"))
    if mode not in _POOLING:
        raise BadInput(f"{c.folder}/{name}: runtimes pool by mean, first token or last token, not by {mode!r}")
    m.u32(f"{a}.pooling_type", _POOLING[mode])


def dense_features(m: Metadata, a: str, c: Config) -> None:
    """Widths of the dense modules of sentence-transformers, where they are taken along."""
    for number in (2, 3):
        rows = c.checkpoint.tensors.get(f"dense_{number}_out.weight") if c.checkpoint is not None else None
        if rows is not None:
            m.u32(f"{a}.dense_{number}_feat_in", rows.shape[-1])
            m.u32(f"{a}.dense_{number}_feat_out", rows.shape[0])


def key_value_length(m: Metadata, a: str, c: Config) -> None:
    """Width of a head, for classes that state it."""
    if c.get("head_dim") is not None:
        m.u32(f"{a}.attention.key_length", c.head_dim)
        m.u32(f"{a}.attention.value_length", c.head_dim)


def file_type(m: Metadata, a: str, c: Config) -> None:
    """Keeps the place of ``general.file_type``; the value follows from the chosen types."""
    m.u32("general.file_type", 0)


def vocab_size(m: Metadata, a: str, c: Config) -> None:
    """Entries of the embedding."""
    m.u32(f"{a}.vocab_size", c.integer("vocab_size"))


def rope_dimension_count(m: Metadata, a: str, c: Config) -> None:
    """Rotated dimensions of a head."""
    m.u32(f"{a}.rope.dimension_count", c.head_dim)


def sliding_window(m: Metadata, a: str, c: Config) -> None:
    """Width of the attention window."""
    if c.get("sliding_window") is not None:
        m.u32(f"{a}.attention.sliding_window", c.integer("sliding_window"))


#: A soft cap so high that it does nothing: tanh(x / cap) * cap == x in float32 for any logit.
_NO_CAP = 1e9


def soft_caps(m: Metadata, a: str, c: Config) -> None:
    """Caps of attention and output logits of Gemma 2.

    Loaders assume 50 and 30 when the keys are missing and divide by them when they are 0, so "no cap" is a huge one.
    """
    m.f32(f"{a}.attn_logit_softcapping", float(c.get("attn_logit_softcapping") or _NO_CAP))
    m.f32(f"{a}.final_logit_softcapping", float(c.get("final_logit_softcapping") or _NO_CAP))


def final_soft_cap(m: Metadata, a: str, c: Config) -> None:
    """Cap of the output logits, where there is one."""
    if c.get("final_logit_softcapping"):
        m.f32(f"{a}.final_logit_softcapping", c.real("final_logit_softcapping"))


#: The reference converter's common set, in its order.
BASE: tuple[Key, ...] = (
    block_count, context_length, embedding_length, feed_forward_length, head_count, head_count_kv, causal, rope_scaling,
    rope_sections, rope_freq_base, rope_freq_base_swa, rms_epsilon, layer_norm_epsilon, expert_counts, key_value_length,
    file_type,
)  # fmt: skip
