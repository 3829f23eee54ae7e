"""The vision tower of Phi-4: SigLIP 2 without its last layer, as the features are those of the one before."""

from __future__ import annotations

import math
from dataclasses import replace

from ...errors import BadInput, InputMissing
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ._pixels import limits
from ._vision import SIGLIP, convolution, epsilon, gelu, processor, projector, tower, with_root

_POSITIONS = "vision_model.embeddings.position_embedding.weight"


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; of patches the image processor says it, of images the table of positions, and how many patches either of the two."""
    found = c.checkpoint.tensors if c.checkpoint is not None else {}
    table = next((t for name, t in found.items() if name.endswith(_POSITIONS)), None)
    if table is None:
        raise InputMissing(f"{c.folder} has no tensor '{_POSITIONS}'", "Is this the whole checkpoint?")
    grid = math.isqrt(table.shape[0])
    if grid**2 != table.shape[0]:
        raise BadInput(f"{c.folder}: '{_POSITIONS}' has {table.shape[0]} rows, which are no square of patches")
    said = processor(c)
    side, least, most = (
        _count(c, key, said.get(key, c.raw.get(key) if key != "patch_size" else None))
        for key in ("patch_size", "min_num_patches", "max_num_patches")
    )
    tower(m, c, image_size=grid * side, patch_size=side, block_count=c.n_layers - 1)
    limits(m, least * side**2, most * side**2)


def _count(c: Config, key: str, said: object) -> int:
    if isinstance(said, bool) or not isinstance(said, int) or said <= 0:
        raise BadInput(f"{c.folder}: the image processor's {key!r} is {said!r}, not a number above 0")
    return said


def variant(family: Family, c: Config) -> Family:
    """Without the last layer (BadInput where it is the only one)."""
    if c.n_layers < 2:
        raise BadInput(f"{c.place}: the vision tower has {c.n_layers} layers, of which runtimes leave out the last")
    last = f"vision_tower.vision_model.encoder.layers.{c.n_layers - 1}.*"
    return replace(family, drops={**family.drops, last: "behind the features that are taken"})


def why_not(name: str) -> str | None:
    """The tower and the projection."""
    starts = "vision_tower.", "model.vision_tower.vision_tower.", "model.mm_projector.", "mm_projector."
    return None if name.startswith(starts) else "not part of the projector"


def spelled(name: str, _config: Config) -> str:
    """``name`` without what is around the tower."""
    return name.removeprefix("model.vision_tower.").removeprefix("model.")


FAMILY = projector(
    "phi4",
    ("Phi4ForCausalLMV",),
    keys=(keys, gelu, epsilon("layer_norm_eps", default=1e-6)),
    classes={"siglip2_vision_model": SIGLIP},
    section=with_root("mm_projector_type"),
    assumes={"hidden_act": Assumed(("gelu_pytorch_tanh", "gelu")), "mm_projector_type": Assumed(("mlp2x_gelu",))},
    why_not=why_not,
    spelled=spelled,
    variant=variant,
    drops={
        "*.vision_model.head.*": "not part of the projector",
        "*.vision_model.post_layernorm.*": "behind the features that are taken",
    },
    transforms={"v.patch_embd": convolution},
    names={f"mm_projector.{n}": f"mm.{n}" for n in (0, 2)},
)
