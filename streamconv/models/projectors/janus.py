"""The vision tower of Janus and the layers that align it; what makes images is left out."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._vision import epsilon, of_the_outer_class, projector, tower


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; the feed-forward network's may be a ratio to the width."""
    given = (
        {} if c.get("intermediate_size") is not None else {"feed_forward_length": round(c.hidden * c.real("mlp_ratio"))}
    )
    tower(m, c, **given)
    act = str(c.get("hidden_act")).lower()
    if act in ("gelu", "silu"):
        m.boolean(f"clip.use_{act}", True)


def why_not(name: str) -> str | None:
    """The tower and what aligns it."""
    starts = "vision_model.", "aligner."
    return None if name.removeprefix("model.").startswith(starts) else "not part of the projector"


def spelled(name: str, _config: Config) -> str:
    """``name`` in the outer ``model.``, whose layers that align are numbered."""
    return f"model.{name.removeprefix('model.')}"


FAMILY = projector(
    "janus_pro",
    ("JanusForConditionalGeneration",),
    keys=(keys, epsilon("layer_norm_eps", default=1e-6)),
    section=of_the_outer_class,
    classes={"janus_vision": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 384, "patch_size": 16,
        "hidden_act": "gelu", "layer_norm_eps": 1e-6, "mlp_ratio": 4.0,
    }},
    assumes={"use_qk_norm": Assumed((False,))},
    why_not=why_not,
    spelled=spelled,
    names={"model.aligner.fc1": "mm.0", **{f"model.aligner.hidden_layers.{n}": f"mm.{n + 1}" for n in range(15)}},
)  # fmt: skip
