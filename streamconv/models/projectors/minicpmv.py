"""MiniCPM-V 2.6's projector file, as llama.cpp's legacy scripts write it: SigLIP and a resampler of its features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import BadInput
from ...kit import Transposed, split
from ...metadata import Metadata
from ...rows import Floats, Rows
from ..assumed import Assumed
from ..config import Config
from ..multimodal import LEGACY
from ..rules import Rule
from ._vision import F16_IN_F16, epsilon, gelu, image_statistics, projector, sizes, vision_section, within

#: of the version that the scripts number 3
_VERSION = "2.6"
_SIDE, _PATCH, _QUERIES = 448, 14, 64
#: patches of a side that the table of positions has room for
_GRID = 70
_HALF = [0.5, 0.5, 0.5]


class Positions(Rows):
    """Sines and cosines of the column and the row of each point of a grid, float32[grid ** 2, width].

    Row ``r * grid + c`` is e(c) and e(r), where e(p) is sin(p w), cos(p w) for w = 10000 ** -(i / (width / 4)), i < width / 4.
    """

    def __init__(self, grid: int, width: int) -> None:
        self.grid = grid
        self.width = width
        self.shape = (grid * grid, width)
        self.dtype = "F32"

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        n = self.width // 4
        powers = np.float32(10000) ** (np.arange(n, dtype=np.float32) / np.float32(n))
        angles = np.arange(self.grid, dtype=np.float32)[:, None] * (np.float32(1) / powers)
        table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        row, column = np.divmod(np.arange(start, stop), self.grid)
        out[:, : 2 * n] = table[column]
        out[:, 2 * n :] = table[row]


def section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tower's section, with what the root says of its output (BadInput: of another version)."""
    name, version = (raw.get("architectures") or [""])[0], raw.get("version")
    if name != "MiniCPMV" or str(version) != _VERSION:
        said = "a version that it does not state" if version is None else f"version {version}"
        raise BadInput(
            f"config.json is that of a {name} of {said}: of such models only the projector of MiniCPM-V {_VERSION} can be written",
            f"{LEGACY} The text model alone is converted without --mmproj.",
        )
    outer = {key: raw[key] for key in ("drop_vision_last_layer", "query_num") if key in raw}
    return {**vision_section(raw), **outer, "model_type": "minicpmv_vision"}


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """What the scripts write; no kind of file and no name."""
    m.remove("general.type")
    m.string("general.description", "image encoder for MiniCPM-V")
    m.boolean("clip.has_text_encoder", False)
    m.boolean("clip.has_vision_encoder", True)
    m.boolean("clip.has_minicpmv_projector", True)
    m.i32("clip.minicpmv_version", 3)
    sizes(m, c, image_size=_SIDE)
    m.u32("clip.vision.projection_dim", 0)
    m.u32("clip.minicpmv_query_num", c.integer("query_num"))
    image_statistics(m, c, {"image_mean": _HALF, "image_std": _HALF})


def turned(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """The table of positions, which checkpoints do not have, and the projection the other way round."""
    return Positions(_GRID, rows[0].shape[-1]), Transposed(rows[0])


def parts(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Queries, keys and values."""
    return split(rows[0], [rows[0].shape[0] // 3] * 3)


_BLOCK = "vpm.encoder.layers.{bid}"
FAMILY = projector(
    "resampler",
    ("MiniCPMV", "MiniCPMO"),
    keys=(keys, epsilon("layer_norm_eps", default=1e-6), gelu),
    section=section,
    classes={"minicpmv_vision": {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16, "patch_size": _PATCH,
        "query_num": _QUERIES,
    }},
    assumes={
        "patch_size": Assumed((_PATCH,)), "drop_vision_last_layer": Assumed((False,)),
        "hidden_act": Assumed(("gelu_pytorch_tanh", "gelu")),
    },
    why_not=within("resampler.", "vpm."),
    types={"v.patch_embd.weight": "F16", "v.position_embd.weight": F16_IN_F16},
    rules=(
        Rule(("resampler.pos_embed_k", "resampler.proj.weight"), ("resampler.proj",), turned),
        *(
            Rule(tuple(f"resampler.attn.{part}.{end}" for part in "qkv"), (f"resampler.attn.in_proj_{end}",), parts)
            for end in ("weight", "bias")
        ),
    ),
    names={
        "vpm.embeddings.patch_embedding": "v.patch_embd",
        "vpm.embeddings.position_embedding": "v.position_embd",
        "vpm.post_layernorm": "v.post_ln",
        **{f"{_BLOCK}.layer_norm{n}": f"v.blk.{{bid}}.ln{n}" for n in (1, 2)},
        **{f"{_BLOCK}.self_attn.{part}_proj": f"v.blk.{{bid}}.attn_{part}" for part in ("q", "k", "v", "out")},
        # the scripts call the two so
        f"{_BLOCK}.mlp.fc1": "v.blk.{bid}.ffn_down",
        f"{_BLOCK}.mlp.fc2": "v.blk.{bid}.ffn_up",
    },
)  # fmt: skip
