"""Hyper-parameter keys: what must be there, what must fit together, and which defaults step in silently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .finding import Finding
from .subject import MAX_LAYERS, Subject
from .table import architecture

_REQUIRED = ("context_length", "embedding_length", "block_count", "attention.head_count")
#: keys a loader reads with one exact type
_TYPES = {
    "context_length": "UINT32",
    "embedding_length": "UINT32",
    "block_count": "UINT32",
    "attention.key_length": "UINT32",
    "attention.value_length": "UINT32",
    "attention.layer_norm_rms_epsilon": "FLOAT32",
    "attention.layer_norm_epsilon": "FLOAT32",
    "attention.sliding_window": "UINT32",
    "rope.dimension_count": "UINT32",
    "rope.freq_base": "FLOAT32",
    "rope.scaling.factor": "FLOAT32",
    "rope.scaling.original_context_length": "UINT32",
    "rope.scaling.type": "STRING",
    "expert_count": "UINT32",
    "expert_used_count": "UINT32",
}
#: architecture -> (key, what the loader assumes without it)
_DEFAULTS = {
    "gemma2": (
        ("final_logit_softcapping", "30"),
        ("attn_logit_softcapping", "50"),
        ("attention.sliding_window", "4096"),
    ),
    "cohere2": (("attention.sliding_window_pattern", "every 4th layer full"),),
}


def check(subject: Subject) -> Iterator[Finding]:
    """Compare the hyper-parameters with what the loader reads."""
    known = architecture(subject.arch)
    if known is None or not subject.is_text_model:
        return
    required = [*_REQUIRED, known.norm_key, *known.keys]
    for name in required:
        if name not in subject:
            yield Finding("error", f"key {subject.key(name)} is missing: the loader requires it", subject.key(name))
    if "feed_forward_length" not in subject and "expert_feed_forward_length" not in subject:
        key = subject.key("feed_forward_length")
        yield Finding("error", f"key {key} is missing: the loader takes 0 and no feed-forward tensor fits", key)
    yield from _types(subject)
    yield from _layers(subject)
    yield from _heads(subject)
    yield from _experts(subject)
    yield from _latent_attention(subject)
    for name, default in _DEFAULTS.get(subject.arch, ()):
        if name not in subject:
            message = f'key {subject.key(name)} is missing: the loader assumes {default}, not "none"'
            yield Finding("warning", message, subject.key(name))


def _types(subject: Subject) -> Iterator[Finding]:
    for name, right in _TYPES.items():
        key = subject.key(name)
        found = subject.metadata.values.get(key)
        if found is not None and found.type != right:
            yield Finding("error", f"key {key} is stored as {found.type}, the loader reads {right}", key)


def _layers(subject: Subject) -> Iterator[Finding]:
    count = subject.number("block_count")
    if count is not None and not 0 < count <= MAX_LAYERS:
        key = subject.key("block_count")
        yield Finding("error", f"{key} is {count}, the loader takes 1 to {MAX_LAYERS}", key)
    for name in ("attention.head_count", "attention.head_count_kv", "feed_forward_length"):
        found = subject.get(name)
        if isinstance(found, list) and count is not None and len(found) != count:
            key = subject.key(name)
            yield Finding("error", f"{key} has {len(found)} entries for {count} layers", key)


def _heads(subject: Subject) -> Iterator[Finding]:
    names = subject.names(0)
    n_head, n_head_kv, n_rot, head_k = (names[name] for name in ("n_head", "n_head_kv", "n_rot", "head_k"))
    key = subject.key("attention.head_count_kv")
    if n_head and n_head_kv and n_head % n_head_kv:
        yield Finding("error", f"{key} is {n_head_kv}, which does not divide {n_head} heads", key)
    elif "attention.head_count_kv" not in subject and n_head:
        yield Finding("note", f"{key} is absent: the loader takes head_count, {n_head}", key)
    if subject.arch in ("llama", "falcon") and n_rot is not None and n_rot != head_k:
        key = subject.key("rope.dimension_count")
        yield Finding("error", f"{key} is {n_rot}; for {subject.arch} it must be the head size, {head_k}", key)


def _experts(subject: Subject) -> Iterator[Finding]:
    count, used, groups = (
        _number(subject, name) for name in ("expert_count", "expert_used_count", "expert_group_count")
    )
    key = subject.key("expert_used_count")
    if count and not 0 < used <= count:
        yield Finding("error", f"{key} is {used} of {count} experts; the loader wants 1 to {count}", key)
    if not count and used:
        yield Finding("error", f"{key} is {used}, but there are no experts", key)
    if groups > 1 and (groups >= count or count % groups):
        key = subject.key("expert_group_count")
        yield Finding("error", f"{key} is {groups}; it must be less than {count} experts and divide them", key)


def _latent_attention(subject: Subject) -> Iterator[Finding]:
    """DeepSeek-V2 wants the rank of q unless the layer count says "lite" (26, 27; 48 with 128256 tokens)."""
    if subject.arch != "deepseek2" or "attention.q_lora_rank" in subject:
        return
    lite = subject.n_blocks in (26, 27) or (subject.n_blocks == 48 and subject.n_vocab == 128256)
    if not lite:
        key = subject.key("attention.q_lora_rank")
        message = f"key {key} is missing: the loader requires it unless the model has 26 or 27 layers"
        yield Finding("error", message, key)


def _number(subject: Subject, name: str) -> int:
    found: Any = subject.get(name, 0)
    return found if type(found) is int else 0
