"""How positions are rotated and scaled, as keys say.

Source: ``llama-context.cpp`` and ``llama-model.cpp`` of llama.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..errors import BadInput
from ..rows import Rows
from .architectures import Computes
from .rope import Rope
from .stated import Keys


def _scaling(keys: Keys) -> tuple[str, float]:
    """Kind and factor of what stretches positions."""
    kind = str(keys.get("rope.scaling.type", "linear"))
    factor = keys.real("rope.scaling.factor", 0.0) or keys.real("rope.scale_linear", 0.0) or 1.0
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise BadInput(
            f"{keys.where}: positions are scaled in a way that is not computed here (rope.scaling.type {kind!r})"
        )
    return kind, 1.0 if kind == "none" else factor


def _magnitude(factor: float, multiplier: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1


def _log_multiplier(keys: Keys) -> float:
    """What YaRN's magnitude is scaled by; DeepSeek's converter has multiplied it by 0.1."""
    stated = keys.real("rope.scaling.yarn_log_multiplier", 0.0)
    return stated / 0.1 if keys.arch in ("deepseek2", "deepseek32", "mistral4") else stated


def latent_factor(keys: Keys) -> float:
    """What YaRN makes of the scale of scores where positions are a part of a head only."""
    kind, factor = _scaling(keys)
    multiplier = _log_multiplier(keys)
    return (_magnitude(factor, multiplier) ** 2) if multiplier and kind == "yarn" else 1.0


def rope_of(rows: Mapping[str, Rows], keys: Keys, computes: Computes, n: int, windowed: bool) -> Rope | None:
    """How a layer rotates ``n`` numbers of a head; None where nothing is rotated."""
    finetuned = keys.get("rope.scaling.finetuned")
    sections = keys.get("rope.dimension_sections") or ()
    base = keys.real("rope.freq_base", 10000.0)
    if computes.stretched_base and (alpha := keys.real("rope.scaling.alpha", 0.0)):
        base *= alpha ** (n / (n - 2))
    if computes.rope == "none" or (computes.divided_logits and finetuned is False):
        keys.pass_over("rope.")
        return None
    kind, factor = _scaling(keys)
    attention = keys.real("rope.scaling.attn_factor", 1.0)
    log_multiplier = _log_multiplier(keys)
    fast, slow = keys.real("rope.scaling.yarn_beta_fast", 32.0), keys.real("rope.scaling.yarn_beta_slow", 1.0)
    halves = computes.rope == "halves" or (keys.arch in ("glm4", "bailingmoe3") and any(sections))
    if windowed:
        base = keys.real("rope.freq_base_swa", computes.window_base or base)
        if not computes.window_scaled:
            return Rope(halves, n, base)
    yarn = kind == "yarn"
    if yarn:
        attention *= _yarn_magnitude(keys, factor, log_multiplier)
    factors = {name: name if name in rows else "" for name in ("rope_freqs.weight", "rope_factors_short.weight")}
    short = factors["rope_factors_short.weight"]
    return Rope(
        halves, n, base, 1 / factor, yarn, fast, slow, keys.original_length(), attention,
        factors["rope_freqs.weight"] or short, "rope_factors_long.weight" if short else "",
    )  # fmt: skip


def _yarn_magnitude(keys: Keys, factor: float, log_multiplier: float) -> float:
    """What cosine and sine are multiplied by."""
    if not log_multiplier:
        return _magnitude(factor, 1.0)
    own = log_multiplier if keys.arch == "deepseek2" and log_multiplier != 1 else 1.0
    return _magnitude(factor, own) / _magnitude(factor, log_multiplier)
