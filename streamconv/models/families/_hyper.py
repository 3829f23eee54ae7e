"""Streams of residuals (hyper-connections), of DeepSeek V4 and GLM 5.3, and bounds of what goes into gates."""

from __future__ import annotations

from ...metadata import Metadata
from ..config import Config
from ..rules import Rule, rename
from ._stated import numbers, reals


def hyper_connections(layer: str) -> tuple[Rule, ...]:
    """The tensors of one layer, which lies at ``layer``."""
    return tuple(
        rename(f"{layer}.hc_{module}_{part}", f"blk.{{bid}}.hc_{module}_{part}.weight")
        for module in ("attn", "ffn")
        for part in ("fn", "base", "scale")
    )


def streams(m: Metadata, a: str, c: Config) -> None:
    """How many there are and how their mixing is balanced."""
    numbers({"hyper_connection.count": "hc_mult", "hyper_connection.sinkhorn_iterations": "hc_sinkhorn_iters"})(m, a, c)
    reals({"hyper_connection.epsilon": "hc_eps"})(m, a, c)


def clamped(m: Metadata, a: str, c: Config) -> None:
    """Bounds of every block, where there are some."""
    if c.get("swiglu_limit") is not None:
        for kind in ("exp", "shexp"):
            m.array(f"{a}.swiglu_clamp_{kind}", "FLOAT32", [c.real("swiglu_limit")] * m.get(f"{a}.block_count"))
