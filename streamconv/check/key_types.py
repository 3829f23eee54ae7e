"""Types of keys: a loader that reads a key with one type stops where the file has another, be the value the same.

Found by loading files with one key of another type in llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .finding import Finding
from .subject import Subject
from .table import Architecture

#: type -> keys that a loader reads with exactly this type, whatever the architecture
_OF_ALL = {
    "UINT32": (
        "context_length", "embedding_length", "embedding_length_out", "block_count", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
        "attention.key_length_swa", "attention.value_length_swa", "attention.sliding_window", "rope.dimension_count",
        "rope.dimension_count_swa", "rope.scaling.original_context_length", "expert_count", "expert_used_count",
        "expert_group_count", "expert_group_used_count", "nextn_predict_layers", "pooling_type",
    ),
    "FLOAT32": (
        "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "rope.freq_base", "rope.scaling.factor",
        "rope.scaling.alpha", "rope.scaling.attn_factor",
    ),
    "BOOL": ("attention.causal", "rope.scaling.finetuned"),
    "STRING": ("rope.scaling.type",),
}  # fmt: skip
#: the same of keys that only some architectures have
_OF_SOME = {
    "UINT32": (
        "attention.key_length_mla", "attention.kv_lora_rank", "attention.q_lora_rank", "attention.relative_buckets_count",
        "expert_feed_forward_length", "expert_gating_func", "expert_shared_count", "expert_shared_feed_forward_length",
        "leading_dense_block_count", "moe_every_n_layers", "n_deepstack_layers", "shortconv.l_cache", "ssm.conv_kernel",
        "ssm.group_count", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "wkv.head_size",
    ),
    "FLOAT32": (
        "attention.clamp_kqv", "attention.max_alibi_bias", "attention.output_scale", "attention.scale",
        "attention.temperature_scale", "attn_logit_softcapping", "embedding_scale", "expert_weights_scale",
        "final_logit_softcapping", "logit_scale", "residual_scale", "rope.freq_base_swa", "rope.scaling.yarn_log_multiplier",
        "router_logit_softcapping",
    ),
    "BOOL": ("expert_weights_norm", "swin_norm", "use_parallel_residual"),
}  # fmt: skip
#: keys that may have one number per layer
PER_LAYER = (
    "attention.head_count",
    "attention.head_count_kv",
    "feed_forward_length",
    "expert_feed_forward_length",
    "expert_used_count",
)
_GENERAL = {"STRING": ("name",), "UINT32": ("file_type",)}
_TOKENIZER = {
    "STRING": ("model", "pre"),
    "UINT32": (
        "token_type_count",
        *(f"{name}_token_id" for name in ("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask")),
        *(f"{name}_token_id" for name in ("fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep")),
        *(f"{name}_token_id" for name in ("prefix", "suffix", "middle")),
    ),
    "BOOL": (
        "add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix", "remove_extra_whitespaces",
        "normalizer.lowercase", "normalizer.strip_accents",
    ),
}  # fmt: skip
_TOKENIZER_ARRAYS = {
    "tokens": ("STRING",),
    "scores": ("FLOAT32", "INT32"),
    "token_type": ("INT32",),
    "merges": ("STRING",),
    "precompiled_charsmap": ("UINT8", "INT8"),
    "suppress_tokens": ("INT32",),
}


def check(subject: Subject) -> Iterator[Finding]:
    """Compare the types of all keys with those that the loader reads."""
    known = subject.known
    if known is None:
        return
    read = _read(known)
    for names in _named(_OF_ALL, subject.arch), _named(_GENERAL, "general"), _named(_TOKENIZER, "tokenizer.ggml"):
        yield from _scalars(subject, names)
    for key, right in _named(_OF_SOME, subject.arch).items():
        yield from _scalars(subject, {key: right}, sure=key.removeprefix(f"{subject.arch}.") in read)
    for name, right_elements in _TOKENIZER_ARRAYS.items():
        key = f"tokenizer.ggml.{name}"
        found = subject.metadata.values.get(key)
        if found is not None and found.elem not in right_elements:
            stored = f"an array of {found.elem}" if found.type == "ARRAY" else found.type
            message = f"key {key} is stored as {stored}, the loader reads an array of {' or '.join(right_elements)}"
            yield Finding("error", message, key)


def _read(known: Architecture) -> set[str]:
    """Keys of which it is known that the loader reads them for this architecture."""
    return {*known.usual, *known.assumes, *(name for key in known.keys for name in key.names)}


def _named(table: Mapping[str, tuple[str, ...]], prefix: str) -> dict[str, str]:
    """Full key -> type."""
    return {f"{prefix}.{name}": right for right, names in table.items() for name in names}


def _scalars(subject: Subject, types: Mapping[str, str], sure: bool = True) -> Iterator[Finding]:
    per_layer = {subject.key(name) for name in PER_LAYER}
    for key, right in types.items():
        found = subject.metadata.values.get(key)
        if found is None or found.type == right or (found.type == "ARRAY" and key in per_layer):
            continue
        reads = f"the loader reads {right}" if sure else f"loaders that read it expect {right}"
        yield Finding("error" if sure else "warning", f"key {key} is stored as {found.type}, {reads}", key)
