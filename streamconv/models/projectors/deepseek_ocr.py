"""The encoders of DeepSeek-OCR, its second version and Unlimited-OCR: SAM before CLIP, or before a small Qwen 2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import BadInput
from ...kit import Reshaped
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ._vision import epsilon, gelu, kind, processor, projector, side_of, told, vision, vision_section, within

#: the outer architecture -> into how many tiles an image is cut at most
_TILES = {"DeepseekOCRForCausalLM": 9, "UnlimitedOCRForCausalLM": 32, "DeepseekOCR2ForCausalLM": 6}
_SECOND = "DeepseekOCR2ForCausalLM"
#: what the second version's encoder is built with, whatever config.json says
_QWEN = {"patch_size": 16, "intermediate_size": 4864, "num_attention_heads": 14, "layers": 24}


def section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tower's section, with what it says of the encoder behind SAM; ``sam`` is what it says of SAM."""
    said = dict(vision_section(raw))
    widths = said.get("width")
    if not isinstance(widths, Mapping) or not isinstance(widths.get("sam_vit_b"), Mapping):
        raise BadInput("config.json: 'width' of the vision section has no 'sam_vit_b'")
    clip, qwen = widths.get("clip-l-14-224"), widths.get("qwen2-0-5b")
    said |= {"sam": widths["sam_vit_b"], **(clip if isinstance(clip, Mapping) else {})}
    if isinstance(said["width"], int):
        said["hidden_size"] = said["width"]
    if isinstance(said.get("heads"), int):
        said |= {"num_heads": said["heads"], "intermediate_size": said["heads"] * 4}
    if (raw.get("architectures") or [""])[0] == _SECOND:
        if not isinstance(qwen, Mapping):
            raise BadInput("config.json: 'width' of the vision section has no 'qwen2-0-5b'")
        said |= {"hidden_size": qwen.get("dim"), **{key: v for key, v in _QWEN.items() if said.get(key) is None}}
    return {key: value for key, value in said.items() if key != "width"}


def cut(m: Metadata, _arch: str, c: Config) -> None:
    """How images are cut, and how features are put together."""
    tokens = processor(c).get("image_seq_length", 256)
    side = math.isqrt(tokens) if isinstance(tokens, int) and tokens > 0 else 16
    scale = side_of(c, "image_size") // side_of(c, "patch_size") // side
    if scale not in (0, 4):
        m.u32("clip.vision.projector.scale_factor", scale)
    m.u32("clip.vision.window_size", c.integer("window_size") if c.get("window_size") is not None else 14)
    m.u32("clip.vision.preproc_min_tiles", 2)
    m.u32("clip.vision.preproc_max_tiles", _TILES[c.raw["architectures"][0]])


def sam(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes of SAM."""
    inner = Config(c.get("sam"), {}, {}, c.checkpoint)
    for key, name in (("block_count", "layers"), ("embedding_length", "width"), ("head_count", "heads")):
        m.u32(f"clip.vision.sam.{key}", inner.integer(name))


def grouped(m: Metadata, _arch: str, _c: Config) -> None:
    """Two heads of keys and values."""
    m.u32("clip.vision.attention.head_count_kv", 2)


def variant(family: Family, c: Config) -> Family:
    """The second version has a type of its own."""
    is_second = c.raw["architectures"][0] == _SECOND
    more = (kind("deepseekocr2"), grouped) if is_second else (kind("deepseekocr"),)
    return replace(family, keys=(*family.keys, *more))


def spelled(name: str, _config: Config) -> str:
    """``name`` with a suffix where tables of positions have none."""
    return f"{name}.weight" if name.endswith(("pos_embed", "rel_pos_h", "rel_pos_w")) else name


def a_row(rows: Rows, _config: Config) -> Rows:
    """A vector as a matrix of one row."""
    return Reshaped(rows, (1, *rows.shape))


_QWEN_LAYER = "model.qwen2_model.model.model.layers.{bid}"
FAMILY = projector(
    ("deepseekocr", "deepseekocr2"),
    tuple(_TILES),
    keys=(vision, epsilon("layer_norm_eps", default=1e-6), gelu, cut, sam),
    section=section,
    assumes={
        "vision_config.width.sam_vit_b.global_attn_indexes": Assumed(
            ([2, 5, 8, 11],), "in runtimes layers 2, 5, 8 and 11 of SAM look at the whole image, and no others"
        ),
        **told(__tile_tag="2D", __global_view_pos="head", projector_config__projector_type="linear"),
    },
    variant=variant,
    why_not=within("sam_model.", "vision_model.", "qwen2_model.", "projector.", "image_newline", "view_seperator"),
    spelled=spelled,
    transforms={"v.view_seperator": a_row},
    types={
        "v.patch_embd.weight": "F32", "v.position_embd.*": "F32", "v.sam.pos_embd.*": "F32", "v.sam.*.pos_[hw].*": "F32",
        "v.sam.neck.*": "F32", "v.sam.net_*": "F32",
    },
    names={
        **{f"{_QWEN_LAYER}.self_attn.{part}_proj": f"v.blk.{{bid}}.attn_{part}" for part in "qkv"},
        **{f"{_QWEN_LAYER}.mlp.{part}_proj": f"v.blk.{{bid}}.ffn_{part}" for part in ("gate", "up", "down")},
        f"{_QWEN_LAYER}.self_attn.o_proj": "v.blk.{bid}.attn_out",
        f"{_QWEN_LAYER}.input_layernorm": "v.blk.{bid}.ln1",
        f"{_QWEN_LAYER}.post_attention_layernorm": "v.blk.{bid}.ln2",
        "model.qwen2_model.model.model.norm": "v.post_ln",
        **{f"model.qwen2_model.query_{side}": f"v.resample_query_{side}" for side in (768, 1024)},
    },
)  # fmt: skip
