"""The vision towers of Qwen 2 VL and 2.5 VL: fused queries, keys and values are split, patches of two frames too."""

from __future__ import annotations

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._vision import of_the_outer_class, projector, thirds, time_slices, told, tower, within

_COMMON = {"depth": 32, "hidden_size": 3584, "num_heads": 16, "patch_size": 14, "image_size": 560}
_KINDS = {"qwen2_vl": "qwen2vl_merger", "qwen2_5_vl": "qwen2.5vl_merger"}


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; of Qwen 2 the width is ``embed_dim``, and ``hidden_size`` stands for the feed-forward network."""
    said = str(c.get("model_type")).removesuffix("_vision")
    if said not in _KINDS:
        raise BadInput(f"{c.place}: model_type {said!r} is neither 'qwen2_vl' nor 'qwen2_5_vl'")
    is_first = said == "qwen2_vl"
    of_the_first = {"embedding_length": "embed_dim", "feed_forward_length": "hidden_size"} if is_first else {}
    tower(m, c, **{key: c.integer(name) for key, name in of_the_first.items()})
    m.string("clip.projector_type", _KINDS[said])
    if not is_first:
        m.boolean("clip.use_silu", True)
        m.u32("clip.vision.n_wa_pattern", window_pattern(c))
    m.f32("clip.vision.attention.layer_norm_epsilon", 1e-6)


def window_pattern(c: Config) -> int:
    """Every which block looks at the whole image (BadInput where these are not at one distance from each other)."""
    full = list(c.get("fullatt_block_indexes") or ())
    every = full[0] + 1 if full and isinstance(full[0], int) else 0
    if not every or full != list(range(every - 1, full[-1] + 1, every)):
        raise BadInput(
            f"{c.place}: 'fullatt_block_indexes' is {full}, runtimes look at the whole image in every n-th block"
        )
    return every


FAMILY = projector(
    ("qwen2vl_merger", "qwen2.5vl_merger"),
    ("Qwen2VLForConditionalGeneration", "Qwen2VLModel", "Qwen2_5_VLForConditionalGeneration"),
    keys=(keys,),
    section=of_the_outer_class,
    #: class defaults
    classes={
        "qwen2_vl_vision": {**_COMMON, "embed_dim": 1280},
        "qwen2_5_vl_vision": {**_COMMON, "intermediate_size": 3420, "fullatt_block_indexes": [7, 15, 23, 31]},
    },
    assumes={
        "hidden_act": Assumed(lambda _, c: ("silu",) if c.get("intermediate_size") else ("quick_gelu",)),
        "spatial_merge_size": Assumed((2,)), **told(window_size=112),
    },
    why_not=within("visual."),
    rules=(*thirds("visual.blocks.{bid}.attn.qkv"), time_slices("visual.patch_embed.proj.weight")),
)  # fmt: skip
