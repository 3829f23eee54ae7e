"""Kimi's delta attention: layers with short convolutions and gated states, of several families."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

from ...kit import NEGATIVE_EXP, Mapped, Reshaped, cut
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..family import Transform
from ..keys import Key
from ..names import plain_name

#: what such a layer has: name in ``self_attn`` -> GGUF name in a block
NAMES = {f"model.layers.{{bid}}.self_attn.{name}": f"blk.{{bid}}.{target}" for name, target in (
    *((f"{part}_proj", f"attn_{part}") for part in "qkv"), *((f"{part}_conv1d", f"ssm_conv1d_{part}") for part in "qkv"),
    ("A_log", "ssm_a"), ("b_proj", "ssm_beta"), ("dt_proj", "ssm_dt"), ("o_norm", "ssm_norm"),
    *((f"{part}_proj", f"ssm_{part}") for part in ("f_a", "f_b", "g_a", "g_b")),
)}  # fmt: skip


def spelled(name: str, _config: Config) -> str:
    """``name`` plain, with the step's bias called as one."""
    return plain_name(name).replace(".dt_bias", ".dt_proj.bias")


def section(c: Config) -> Config:
    """What config.json says of these layers."""
    stated = c.get("linear_attn_config")
    return replace(c, values=stated if isinstance(stated, dict) else {})


def full_layers(c: Config) -> list[bool]:
    """Whether each layer has latent attention, as lists that count from one say it."""
    full = section(c).get("full_attn_layers")
    return [isinstance(full, list) and n + 1 in full for n in range(c.n_layers)]


def sizes(attends: Callable[[Config], list[bool]]) -> Key:
    """Key/value heads of every layer, one where attention is latent, none in the others; sizes of these."""

    def key(m: Metadata, a: str, c: Config) -> None:
        m.array(f"{a}.attention.head_count_kv", "INT32", [int(each) for each in attends(c)])
        delta = section(c)
        m.u32(f"{a}.ssm.conv_kernel", delta.integer("short_conv_kernel_size"))
        m.u32(f"{a}.kda.head_dim", delta.integer("head_dim"))

    return key


def gate_bound(m: Metadata, a: str, c: Config) -> None:
    """The least that their gates may be, where it is said."""
    if section(c).get("gate_lower_bound") is not None:
        m.f32(f"{a}.kda.gate_lower_bound", float(section(c).values["gate_lower_bound"]))


def convolution(rows: Rows, _config: Config) -> Rows:
    """A row of weights per channel, with axes between that runtimes look for."""
    return Reshaped(rows, (1, rows.shape[0], 1, rows.shape[-1]))


def decay(rows: Rows, c: Config) -> Rows:
    """A number a head, of which some files have more."""
    flat = rows if len(rows.shape) == 1 else Reshaped(rows, (prod(rows.shape),))
    return Mapped(cut(flat, 0, c.n_heads), NEGATIVE_EXP)


TRANSFORMS: dict[str, Transform] = {"ssm_conv1d_*": convolution, "ssm_a": decay}
