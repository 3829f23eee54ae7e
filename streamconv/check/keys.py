"""Hyper-parameter keys: what must be there, what must fit together, and which defaults step in silently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .finding import Finding, Kind
from .key_types import PER_LAYER
from .subject import MAX_LAYERS, REQUIRED, Subject
from .table import Architecture, Key

#: architectures whose heads are rotated whole
_WHOLE_ROTATION = ("llama", "llama-embed", "deci", "falcon")


def check(subject: Subject) -> Iterator[Finding]:
    """Compare the hyper-parameters with what the loader reads."""
    known = subject.known
    if known is None:
        return
    yield from _required(subject, known)
    yield from _layers(subject)
    yield from _heads(subject)
    yield from _experts(subject)
    conditions: tuple[tuple[Mapping[str, str], Kind], ...] = ((known.must, "other"), (known.alone, "alone"))
    for rules, kind in conditions:
        for rule, words in rules.items():
            if subject.scope().evaluated(rule) == 0:
                yield Finding("error", f"the loader fails: {words}", kind=kind)
    yield from _defaults(subject, known)


def _required(subject: Subject, known: Architecture) -> Iterator[Finding]:
    for key in (*(Key((name,)) for name in REQUIRED), *known.keys):
        if any(subject.stated.plain(name) is not None for name in key.names):
            continue
        if not key.condition or subject.scope().evaluated(key.condition):
            full = " or ".join(subject.stated.full(name) for name in key.names)
            message = f"key {full} is missing: the loader requires it"
            yield Finding("error", message, subject.stated.full(key.names[0]), "missing")


def _defaults(subject: Subject, known: Architecture) -> Iterator[Finding]:
    """Absent keys for which something else than "none" steps in."""
    for name, default in known.assumes.items():
        if name not in subject:
            message = f'key {subject.key(name)} is missing: the loader assumes {default}, not "none"'
            yield Finding("warning", message, subject.key(name))
    for name in known.usual:
        if name not in subject and name not in known.assumes:
            message = (
                f"key {subject.key(name)} is missing, which converters write for this family: the loader uses a default"
            )
            yield Finding("warning", message, subject.key(name))


def _layers(subject: Subject) -> Iterator[Finding]:
    count = subject.number("block_count")
    if count is not None and not 0 < count <= MAX_LAYERS:
        key = subject.key("block_count")
        yield Finding("error", f"{key} is {count}, the loader accepts 1 to {MAX_LAYERS}", key)
    for name in PER_LAYER:
        found = subject.get(name)
        if isinstance(found, list) and count is not None and len(found) != count:
            key = subject.key(name)
            yield Finding("error", f"{key} has {len(found)} entries for {count} layers", key)


def _heads(subject: Subject) -> Iterator[Finding]:
    names = subject.scope()
    n_head, n_head_kv, n_rot, head_k = (names[name] for name in ("n_head", "n_head_kv", "n_rot_full", "head_k_full"))
    key = subject.key("attention.head_count_kv")
    if n_head and n_head_kv and n_head % n_head_kv:
        yield Finding("error", f"{key} is {n_head_kv}, which does not divide {n_head} heads", key)
    elif "attention.head_count_kv" not in subject and n_head:
        yield Finding("note", f"{key} is absent: the loader uses head_count, {n_head}", key)
    if subject.arch in _WHOLE_ROTATION and n_rot is not None and n_rot != head_k:
        key = subject.key("rope.dimension_count")
        yield Finding("error", f"{key} is {n_rot}; for {subject.arch} it must be the head size, {head_k}", key)


def _experts(subject: Subject) -> Iterator[Finding]:
    count, used, groups = (
        _number(subject, name) for name in ("expert_count", "expert_used_count", "expert_group_count")
    )
    key = subject.key("expert_used_count")
    if count and not 0 < used <= count:
        yield Finding("error", f"{key} is {used} of {count} experts; the loader expects 1 to {count}", key)
    if "expert_count" in subject and not count and "expert_count" in subject.stated.required:
        key = subject.key("expert_count")
        yield Finding("error", f"{key} is 0; a {subject.arch} model has experts", key)
    if not count and used:
        yield Finding("error", f"{key} is {used}, but there are no experts", key)
    if groups > 1 and (groups >= count or count % groups):
        key = subject.key("expert_group_count")
        yield Finding("error", f"{key} is {groups}; it must be less than {count} experts and divide them", key)
    elif groups > 1 and not 0 < (used := _number(subject, "expert_group_used_count")) < groups:
        key = subject.key("expert_group_used_count")
        yield Finding(
            "error", f"{key} is {used} of {groups} groups of experts; the loader expects 1 to {groups - 1}", key
        )


def _number(subject: Subject, name: str) -> int:
    """An integer, the largest where there is one per layer."""
    found: Any = subject.get(name, 0)
    if isinstance(found, list):
        found = max((value for value in found if type(value) is int), default=0)
    return found if type(found) is int else 0
