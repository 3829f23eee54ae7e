"""Adapters that MLX trained, converted to the names and settings of PEFT.

    <module>.lora_a [inputs, rank], .lora_b [rank, outputs]     transposed against PEFT's; of an embedding [tokens, rank], …
    <experts>.lora_a [experts, rank, inputs], .lora_b [experts, outputs, rank]
    <module>.m                                                  lengths of DoRA
    <module>.<parameter>                                        a tensor to take instead of the base's (fine_tune_type full)

``adapter_config.json`` has ``lora_parameters`` with the scale itself, which PEFT gives as ``alpha / rank``. Source:
mlx_lm/tuner/lora.py, dora.py and utils.py (0.31).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from ..errors import BadInput
from ..kit.transposed import Transposed
from ..rows import Rows
from ..sources.naming import shown
from .layout import is_embedding

_KINDS = ("lora", "dora", "full")
_HINT = "Fuse it with mlx_lm.fuse and give the resulting model."


def is_of_mlx(config: Mapping[str, Any]) -> bool:
    """Whether adapter_config.json is one that MLX wrote."""
    return "peft_type" not in config and ("lora_parameters" in config or "fine_tune_type" in config)


def as_peft(
    where: str, config: Mapping[str, Any], tensors: Mapping[str, Rows]
) -> tuple[dict[str, Any], dict[str, Rows]]:
    """adapter_config.json and tensors as PEFT has them.

    Parameters
    ----------
    where : the adapter, for messages

    Raises
    ------
    BadInput : a setting or a tensor that is not understood, by its name
    """
    kind = config.get("fine_tune_type", "lora")
    if kind not in _KINDS:
        raise BadInput(
            f"{where} is an MLX adapter with fine_tune_type {shown(str(kind))}, which cannot be merged", _HINT
        )
    settings = {"base_model_name_or_path": config.get("model"), "use_dora": kind == "dora"}
    if kind == "full":
        return settings, dict(tensors)
    parameters = config.get("lora_parameters")
    scale = parameters.get("scale") if isinstance(parameters, Mapping) else None
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) < 1e30 or not isfinite(scale):
        raise BadInput(f"{where} is an MLX adapter whose lora_parameters have no scale that can be used", _HINT)
    named: dict[str, Rows] = {}
    for name, rows in tensors.items():
        module, _, part = name.rpartition(".")
        named[f"{module}.{_part(where, kind, name, module, part)}"] = (
            rows if part == "m" else _turned(where, name, rows)
        )
    ranks = {rows.shape[-2] for name, rows in named.items() if name.endswith("_A")}
    stated = parameters.get("rank") if isinstance(parameters, Mapping) else None
    if len(ranks) != 1 or stated not in (None, *ranks):
        found = ", ".join(map(str, sorted(ranks))) or "no"
        raise BadInput(
            f"{where} is an MLX adapter with tensors of rank {found}, adapter_config.json says {shown(str(stated))}"
        )
    (rank,) = ranks
    return {**settings, "r": rank, "lora_alpha": scale * rank}, named


def _part(where: str, kind: str, name: str, module: str, part: str) -> str:
    """What PEFT calls a part of a module."""
    looks_up = is_embedding(f"{module}.weight")
    if part in ("lora_a", "lora_b") and not (looks_up and kind == "dora"):
        return f"lora_{'embedding_' if looks_up else ''}{part[-1].upper()}"
    if part == "m" and kind == "dora" and not looks_up:
        return "lora_magnitude_vector"
    raise BadInput(f"{where}: tensor {shown(name)} of an MLX adapter is not understood", _HINT)


def _turned(where: str, name: str, rows: Rows) -> Rows:
    if len(rows.shape) == 3 and ".switch_mlp." in name:
        return rows  # of experts, not transposed
    if len(rows.shape) != 2:
        raise BadInput(
            f"{where}: tensor {shown(name)} of an MLX adapter has shape {list(rows.shape)}; only layers that are matrices can be"
            " merged",
            _HINT,
        )
    return Transposed(rows)
