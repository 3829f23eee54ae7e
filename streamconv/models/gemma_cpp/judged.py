"""What config.json says of a text model otherwise than gemma.cpp computes: refused, or told where it changes little.

What the runtime has fixed: GELU (tanh), no biases, a head that is the embedding, two scales of queries, RoPE of base 10 000, in
Gemma 3 from 1B on of 1 000 000 in the layers without a window, over the whole width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import BadInput, UsageError
from ...sources.hf_config import is_tied
from ...sources.naming import shown
from ..assumed import GELU_TANH, unknown
from ..config import Config
from .models import TWO_BASES, KnownModel

#: keys that are looked at here, and those that change nothing
_LOOKED_AT = (
    "layer_types", "sliding_window", "query_pre_attn_scalar", "rms_norm_eps", "sliding_window_pattern", "vocab_size",
    "max_position_embeddings", "intermediate_size", "hidden_size", "attn_logit_softcapping", "final_logit_softcapping",
    "rope_local_base_freq", "num_key_value_heads",
)  # fmt: skip
_IDLE = ("num_image_tokens", "_sliding_window_pattern", "use_bidirectional_attention", "projection_dim")


def said(value: Any) -> str:
    """What config.json says, where that is not long."""
    text = repr(value)
    return text if len(text) <= 80 else shown(text)


def kinds_of_layers(config: Config) -> list[str]:
    """Which kind of attention each layer has (BadInput: one that the runtime has not)."""
    if config.get("layer_types"):
        kinds = [str(kind) for kind in config.layer_types]
        other = next((kind for kind in kinds if kind not in ("sliding_attention", "full_attention")), None)
        if other is not None:
            raise BadInput(f"{config.place}: 'layer_types' has {said(other)}, which gemma.cpp does not compute")
        return kinds
    pattern = config.get("sliding_window_pattern", "_sliding_window_pattern")
    if pattern is None:
        pattern = 6 if config.rope_local else 2
    every = pattern if isinstance(pattern, int) and pattern > 0 else 1
    return ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(config.n_layers)]


def judged(config: Config, known: KnownModel, length: int, sees: bool) -> Iterator[str]:
    """What may be told.

    Parameters
    ----------
    length : tokens of a context
    sees : it is PaliGemma

    Raises
    ------
    BadInput, UsageError : what may not
    """
    for key, assumed in GELU_TANH.items():
        stated = config.get(key)
        if key == "hidden_act" and config.get("hidden_activation") is not None:
            continue
        if key == "use_bidirectional_attention" and sees:
            continue  # over the prompt, as the runtime does for it
        if key != "rope_type" and stated is not None and not callable(assumed.values) and stated not in assumed.values:
            raise BadInput(
                f"{config.place}: {key!r} is {said(stated)}, gemma.cpp computes with {assumed.values[0]!r}",
                "Its weight files cannot express this, so the output would be a different model.",
            )
    if not is_tied(config.raw) and any(n.endswith("lm_head.weight") for n in _names(config)):
        raise BadInput(
            f"{config.place}: the output head is not the embedding, as gemma.cpp has it",
            "The output would be a different model.",
        )
    eps = config.get("rms_norm_eps")
    if eps not in (None, 1e-6):
        yield f"{config.place}: 'rms_norm_eps' is {said(eps)}, gemma.cpp computes with 1e-06"
    has_windows = config.rope_local and "sliding_attention" in kinds_of_layers(config)
    if has_windows and config.get("sliding_window") in (None, length):
        raise UsageError(
            f"--max-seq-len {length} is as long as the window of Gemma 3: gemma.cpp would take layers with a window for others",
            "Choose another length.",
        )
    yield from _judged_rope(config, known)


def _names(config: Config) -> Iterator[str]:
    yield from config.checkpoint.tensors if config.checkpoint is not None else ()


def _judged_rope(config: Config, known: KnownModel) -> Iterator[str]:
    base = 1e6 if known.number in TWO_BASES else 1e4
    bases = {"full_attention": (config.rope, base), "sliding_attention": (config.rope_local, 1e4)}
    for kind, (rope, wanted) in bases.items():
        if not rope or kind not in (*kinds_of_layers(config), "full_attention"):
            continue
        stated, scaling = rope.get("rope_theta"), rope.get("rope_type", "default")
        where = f"of {kind.replace('_', ' ')}"
        if stated not in (None, wanted):
            if known.display_name != "Gemma3_270M":
                raise BadInput(
                    f"{config.place}: the base of RoPE {where} is {stated:g}, gemma.cpp computes {known.display_name} with"
                    f" {wanted:g}",
                    "Its weight files cannot express this, so the output would be a different model.",
                )
            yield f"{config.place}: the base of RoPE {where} is {stated:g}, gemma.cpp computes {known.display_name} with {wanted:g}"
        if scaling == "linear" and known.family == "gemma3":
            yield f"{config.place}: positions {where} are divided by {rope.get('factor')}, which gemma.cpp does not do"
        elif scaling != "default":
            raise BadInput(f"{config.place}: RoPE {where} is scaled ({said(scaling)}), which gemma.cpp does not do")
        if rope.get("partial_rotary_factor", 1) not in (None, 1):
            raise BadInput(f"{config.place}: RoPE {where} turns a part of each head only, gemma.cpp turns all of it")


def unknown_keys(config: Config) -> Iterator[str]:
    """Keys of config.json that were not looked at."""
    looked_at: Mapping[str, Any] = {**GELU_TANH, **dict.fromkeys(_LOOKED_AT)}
    if names := unknown(config, looked_at, _IDLE):
        yield f"{config.place} says {', '.join(map(shown, names))}, which this version does not know for gemma.cpp"
