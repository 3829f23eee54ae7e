"""What the Hunyuan models share: a context that is stretched by another base of RoPE."""

from __future__ import annotations

from ...metadata import Metadata

#: the context that the base of every one of them is made for
LONG = 256 * 1024


def stretched(m: Metadata, a: str, alpha: float, base: float, width: int) -> None:
    """The base of RoPE that stretches the context, of which runtimes are told instead of the stretching."""
    m.f32(f"{a}.rope.freq_base", base * alpha ** (width / (width - 2)))
    m.string(f"{a}.rope.scaling.type", "none")
    m.f32(f"{a}.rope.scaling.factor", 1.0)
    m.u32(f"{a}.rope.scaling.original_context_length", LONG)
    m.u32(f"{a}.context_length", LONG)
