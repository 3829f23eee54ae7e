"""DeepSeek V4 Flash Vision: a tower with gated networks, whose configuration lies beside that of the text model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import BadInput
from ...kit import Reshaped, split
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..rules import Rule
from ._audio import of_root
from ._vision import kind, processor, projector, sizes, text, within

_SIZES = {
    "vision_n_layers": "num_hidden_layers", "vision_dim": "hidden_size", "vision_n_heads": "num_attention_heads",
    "vision_inter_dim": "intermediate_size", "vision_patch_size": "patch_size", "vision_downsample_ratio": "downsample_ratio",
    "vision_min_pixels": "min_pixels", "vision_rope_theta": "rope_theta",
}  # fmt: skip
_HALF = [0.5] * 3


def section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """What keys that begin with ``vision_`` say (BadInput: there is no tower)."""
    if not raw.get("vision_n_layers"):
        raise BadInput("config.json has no 'vision_n_layers' above 0, so there is no projector to write")
    return {ours: raw[theirs] for theirs, ours in _SIZES.items() if raw.get(theirs) is not None}


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; images are of any size, the one here is what runtimes warm up with."""
    said = processor(c) if c.side("preprocessor_config.json") or c.side("processor_config.json") else {}
    ratio = c.integer("downsample_ratio")
    m.boolean("clip.has_vision_encoder", True)
    m.u32("clip.vision.projection_dim", text(c).hidden)
    sizes(m, c, image_size=c.integer("patch_size") * ratio * 16)
    for key in ("image_mean", "image_std"):
        m.array(f"clip.vision.{key}", "FLOAT32", said.get(key, _HALF))
    kind("deepseek4v")(m, _arch, c)
    m.f32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    m.boolean("clip.use_silu", True)
    m.u32("clip.vision.projector.scale_factor", ratio)
    m.u32("clip.vision.image_min_pixels", c.integer("min_pixels"))


def convolution(rows: Rows, _config: Config) -> Rows:
    """A linear layer over (colour, row, column) of patches as the convolution that it is."""
    side = round((rows.shape[-1] // 3) ** 0.5)
    return Reshaped(rows, (rows.shape[0], 3, side, side))


def halves(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Gate and what it lets through."""
    return split(rows[0], [rows[0].shape[0] // 2] * 2)


FAMILY = projector(
    ("deepseek4v",),
    ("DeepseekV4ForCausalLM",),
    keys=(keys, of_root(vision_max_n_token=Assumed((384,), null=True), vision_max_wh_ratio=Assumed((8,), null=True))),
    section=section,
    assumes={"rope_theta": Assumed((10000,))},
    why_not=within("vision.", "aligner.", "image_"),
    rules=tuple(
        Rule(
            (f"v.blk.{{bid}}.ffn_gate{end}", f"v.blk.{{bid}}.ffn_up{end}"), (f"vision.blocks.{{bid}}.mlp.w1{end}",), halves
        )
        for end in (".weight", ".bias")
    ),
    names={
        "vision.patch_embed.proj": "v.patch_embd", "vision.norm": "v.post_ln", "aligner.w1": "mm.1", "aligner.w2": "mm.2",
        "image_newline": "v.image_newline",
        **{f"image_{part}": f"v.token_embd.img_{part}" for part in ("start", "end", "pad")},
        **{
            f"vision.blocks.{{bid}}.{theirs}": f"v.blk.{{bid}}.{ours}"
            for theirs, ours in (
                ("attn.wqkv", "attn_qkv"), ("attn.wo", "attn_out"), ("mlp.w2", "ffn_down"), ("norm1", "ln1"), ("norm2", "ln2"),
                ("attn.q_norm", "attn_q_norm"), ("attn.k_norm", "attn_k_norm"),
            )
        },
    },
    transforms={"v.patch_embd": convolution},
)  # fmt: skip
