"""Rotary positions: a wrong base or a lost scaling loads without complaint and reads like a damaged model."""

from __future__ import annotations

from collections.abc import Iterator

from ..sources.naming import shown
from .finding import Finding
from .subject import Subject

_DEFAULT_BASE = 10000
_SCALINGS = ("none", "linear", "yarn", "longrope")
#: base and least context of Llama 3.1 and later, which scale their frequencies by a tensor
_LLAMA31_BASE, _LLAMA31_CONTEXT = 500_000, 16_384


def check(subject: Subject) -> Iterator[Finding]:
    """Base, scaling and frequency factors."""
    known = subject.known
    if known is None or known.rope == "none":
        return
    yield from _base(subject, usual=known.rope == "key")
    yield from _scaling(subject)
    yield from _factors(subject)
    if subject.arch.startswith("gemma3"):
        yield from _local_base(subject)


def _base(subject: Subject, usual: bool) -> Iterator[Finding]:
    key = subject.key("rope.freq_base")
    if key not in subject.metadata:
        tail = ", though converters write it for this family" if usual else ""
        yield Finding("warning" if usual else "note", f"{key} is absent: the loader assumes {_DEFAULT_BASE}{tail}", key)
    elif not _positive(subject.get("rope.freq_base")):
        yield Finding("error", f"{key} is {subject.get('rope.freq_base')}; it must be a positive number", key)


def _scaling(subject: Subject) -> Iterator[Finding]:
    key, kind = subject.key("rope.scaling.type"), subject.get("rope.scaling.type")
    factor_key, factor = subject.key("rope.scaling.factor"), subject.get("rope.scaling.factor")
    if kind is None:
        if factor is not None and factor != 1:
            yield Finding("note", f"{factor_key} is {factor} and {key} is absent: the loader treats it as linear", key)
        return
    if kind not in _SCALINGS:
        yield Finding("error", f"{key} is {shown(str(kind))}; the loader knows {', '.join(_SCALINGS)} and aborts", key)
    elif kind in ("linear", "yarn") and not _positive(factor):
        yield Finding(
            "warning", f"{key} is {kind} but {factor_key} is absent: the loader uses 1, nothing is scaled", key
        )
    if kind == "yarn" and "rope.scaling.original_context_length" not in subject:
        original = subject.key("rope.scaling.original_context_length")
        yield Finding(
            "warning", f"{original} is absent: the loader uses context_length, and yarn has no effect", original
        )


def _factors(subject: Subject) -> Iterator[Finding]:
    """The tensors that scale single frequencies."""
    if subject.get("rope.scaling.type") == "longrope":
        for name in ("rope_factors_long.weight", "rope_factors_short.weight"):
            if name not in subject.tensors:
                yield Finding(
                    "warning", f"the scaling is longrope but {name} is absent: frequencies are not scaled", name
                )
    base, context = subject.get("rope.freq_base"), subject.number("context_length") or 0
    if subject.arch == "llama" and base == _LLAMA31_BASE and context >= _LLAMA31_CONTEXT:
        name = "rope_freqs.weight"
        if name not in subject.tensors and "rope.scaling.type" not in subject:
            yield Finding(
                "warning",
                f"base {_LLAMA31_BASE} with a context of {context} is Llama 3.1 or later, whose {name} is absent:"
                " long contexts will be wrong",
                name,
            )


def _local_base(subject: Subject) -> Iterator[Finding]:
    """Gemma 3's sliding layers: llama.cpp reads ``freq_base_swa``, candle ``local_freq_base``; both assume 10000."""
    swa_key, local_key = subject.key("rope.freq_base_swa"), subject.key("rope.local_freq_base")
    swa, local = subject.get("rope.freq_base_swa"), subject.get("rope.local_freq_base")
    if swa is None:
        yield Finding("note", f"{swa_key} is absent: llama.cpp assumes {_DEFAULT_BASE} for the sliding layers", swa_key)
    if local is None and swa not in (None, _DEFAULT_BASE):
        yield Finding("warning", f"{local_key} is absent: candle assumes {_DEFAULT_BASE}, not {swa}", local_key)
    elif local is not None and local != (swa if swa is not None else _DEFAULT_BASE):
        yield Finding(
            "warning", f"{local_key} is {local} and {swa_key} {swa}: llama.cpp and candle will differ", local_key
        )
    if "rope.scaling.factor" in subject:
        key = subject.key("rope.scaling.factor")
        yield Finding("note", f"{key} is ignored by candle: long contexts will be wrong there", key)


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and value > 0
