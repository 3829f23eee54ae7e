"""The vision tower of MiniMax M3: rotary positions in time, row and column, which runtimes pair otherwise."""

from __future__ import annotations

from ...errors import BadInput
from ...kit import Order, join, split, take
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ._vision import epsilon, gelu, projector, time_slices, vision, within

#: width of a head that runtimes compute with
_HEAD = 80


def merged(m: Metadata, _arch: str, c: Config) -> None:
    """How many patches a side are merged into one."""
    said = c.get("img_token_compression_config") or {}
    m.u32("clip.vision.spatial_merge_size", int(said.get("spatial_merge_size", 2)))


def paired(rows: Rows, c: Config) -> Rows:
    """Each head's rows [Ta Ha Wa Tb Hb Wb rest] as [Ta Tb Ha Hb Wa Wb rest]."""
    width = rows.shape[0] // max(c.n_heads, 1)
    if width != _HEAD or width * c.n_heads != rows.shape[0]:
        raise BadInput(
            f"{c.folder}: the vision tower's heads are {width} wide, runtimes compute with {_HEAD}",
            "No GGUF key expresses this, so the output would be a different model.",
        )
    half = width // 2 * 2 // 3 // 2  # of an axis: of its 26 numbers
    parts = []
    for head in split(rows, [width] * c.n_heads):
        turned, rest = split(head, [6 * half, width - 6 * half])
        parts += [take(turned, Order((3, 2, half), (half, 3 * half, 1))), rest]
    return join(parts)


FAMILY = projector(
    "minimax_m3",
    ("MiniMaxM3SparseForConditionalGeneration", "MiniMaxM3VLForConditionalGeneration"),
    keys=(vision, gelu, epsilon("layer_norm_eps", default=1e-5), merged),
    classes={"minimax_m3_vl_vision": {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16, "image_size": 2016,
        "patch_size": 14, "layer_norm_eps": 1e-5,
    }},
    assumes={"hidden_act": Assumed(("gelu",)), "rope_theta": Assumed((10000,))},
    why_not=within("vision_tower.", "multi_modal_projector.", "patch_merge_mlp."),
    transforms={"v.blk.*.attn_q": paired, "v.blk.*.attn_k": paired},
    rules=(time_slices("vision_tower.vision_model.embeddings.patch_embedding.weight"),),
    names={f"patch_merge_mlp.linear_{n}": f"mm.merger.fc{n}" for n in (1, 2)},
)  # fmt: skip
