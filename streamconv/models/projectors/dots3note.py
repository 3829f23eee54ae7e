"""dots.3 Note: a vision tower with a pyramid of experts and a tower of sound, in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import BadInput
from ...kit import split
from ...metadata import Metadata
from ...rows import Rows
from ...sources.hf_config import section
from ..assumed import Assumed
from ..config import Config, normalise
from ..rules import Rule
from ._audio import insist, sound_section, spelled_as_one
from ._vision import ears, kind, processor, projector, sizes, text, vision_section, within

_BLOCK, _SPEECH = "vision_encoder.blocks.{bid}", "audio_encoder.dots_encoder.speech_encoder"
_LAYER = f"{_SPEECH}.layers.{{bid}}"
#: what runtimes compute in the tower of sound
_SOUND = {
    "use_conv2d_stem": Assumed((True,), null=True), "use_rope": Assumed((True,), null=True),
    "use_rms_norm": Assumed((True,), null=True), "use_causal": Assumed((False,)), "merge_factor": Assumed((1,)),
    "chunk_seconds": Assumed((60,), null=True),
}  # fmt: skip
_ROPE = {"partial_rotary_factor": Assumed((0.5,), null=True), "rope_theta": Assumed((10000,), null=True)}


def sound(c: Config) -> Config:
    """Sizes of the tower of sound (BadInput: runtimes do not compute it)."""
    found = sound_section("audio_config")(c.raw)
    insist(c, found, _SOUND)
    insist(c, section(found, "rope_parameters"), _ROPE)
    inner = section(found, "whisper_config")
    insist(c, inner, {"activation_function": Assumed(("swiglu",), null=True)})
    return normalise(spelled_as_one(inner), {}, c.checkpoint)


def pyramid(c: Config) -> list[int]:
    """Experts of each block, 0 where it has a plain network."""
    found = c.get("pyramid_num_routed")
    if not isinstance(found, list) or not all(isinstance(n, int) for n in found):
        raise BadInput(f"{c.place}: 'pyramid_num_routed' is {found!r}, not a list of numbers of experts")
    return [max(0, n) for n in found]


def keys(m: Metadata, a: str, c: Config) -> None:
    """Both towers; the width is ``embed_dim``, images are of any size."""
    said = processor(c)
    said |= section(said, "vision_config")
    m.boolean("clip.has_vision_encoder", True)
    m.u32("clip.vision.projection_dim", text(c).hidden)
    sizes(m, c, image_size=0, embedding_length=c.integer("embed_dim"))
    for key in ("image_mean", "image_std"):
        if not isinstance(said.get(key), list) or len(said[key]) != 3:
            raise BadInput(f"{c.folder}: the image processor has no {key!r} of three numbers")
        m.array(f"clip.vision.{key}", "FLOAT32", said[key])
    ears(m, c, sound(c))
    kind("dots3note_v", "vision.")(m, a, c)
    m.boolean("clip.use_silu", True)
    m.f32("clip.vision.attention.layer_norm_epsilon", c.real("rms_norm_eps"))
    m.u32("clip.vision.spatial_merge_size", c.integer("spatial_merge_size"))
    images = Config(said, {}, {}, c.checkpoint)
    for end in ("min", "max"):
        m.u32(f"clip.vision.image_{end}_pixels", images.integer(f"{end}_pixels"))
    m.array("clip.vision.expert_count_per_layer", "INT32", pyramid(c))
    m.u32("clip.vision.expert_used_count", int(c.real("capacity_factor")))
    kind("dots3note_a", "audio.")(m, a, c)
    m.u32("clip.audio.num_mel_bins", sound(c).integer("num_mel_bins"))
    m.f32("clip.audio.attention.layer_norm_epsilon", 1e-6)


def halves(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Gate and what it lets through."""
    return split(rows[0], [rows[0].shape[0] // 2] * 2)


def all_there(rows: Sequence[Rows], config: Config) -> Sequence[Rows]:
    """Experts, stacked, as many as some block has."""
    if any(each.shape[0] not in pyramid(config) for each in rows):
        raise BadInput(
            f"{config.folder}: a block has {rows[0].shape[0]} experts, 'pyramid_num_routed' is {pyramid(config)}"
        )
    return rows


def _vision_names() -> Mapping[str, str]:
    parts = {"fc1": "ffn_gate", "fc2": "ffn_down", "fc3": "ffn_up"}
    return {
        **{f"{_BLOCK}.mlp.{theirs}": f"v.blk.{{bid}}.{ours}" for theirs, ours in parts.items()},
        f"{_BLOCK}.attn.proj": "v.blk.{bid}.attn_out", f"{_BLOCK}.attn.qkv": "v.blk.{bid}.attn_qkv",
        f"{_BLOCK}.attn.q_norm": "v.blk.{bid}.attn_q_norm", f"{_BLOCK}.attn.k_norm": "v.blk.{bid}.attn_k_norm",
        f"{_BLOCK}.norm_1": "v.blk.{bid}.ln1", f"{_BLOCK}.norm_2": "v.blk.{bid}.ln2",
        f"{_BLOCK}.mlp.gate_weight": "v.blk.{bid}.ffn_gate_inp.weight",
        f"{_BLOCK}.mlp.router_bias": "v.blk.{bid}.exp_probs_b.weight",
        "vision_encoder.patch_embed.proj": "v.patch_embd", "vision_encoder.patch_embed.norm": "v.pre_ln",
        "vision_encoder.post_trunk_norm": "mm.post_norm", "vision_encoder.adapter.ln_q": "mm.input_norm",
        "vision_encoder.adapter.mlp.0": "mm.0", "vision_encoder.adapter.mlp.2": "mm.2",
    }  # fmt: skip


def _sound_names() -> Mapping[str, str]:
    parts: dict[str, Any] = {
        "fc2": "ffn_down", "final_layer_norm": "ln2", "self_attn_layer_norm": "ln1", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_out",
    }  # fmt: skip
    adapter = "audio_encoder.audio_adapter.proj"
    return {
        **{f"{_LAYER}.{theirs}": f"a.blk.{{bid}}.{ours}" for theirs, ours in parts.items()},
        **{f"{_SPEECH}.conv2d{n}": f"a.conv2d.{n}" for n in range(1, 4)},
        f"{_SPEECH}.conv_out": "a.conv_out", f"{_SPEECH}.layer_norm": "a.post_ln",
        f"{adapter}.0": "mm.a.norm_pre", f"{adapter}.1": "mm.a.mlp.1", f"{adapter}.3": "mm.a.mlp.3",
    }  # fmt: skip


FAMILY = projector(
    ("dots3note_v", "dots3note_a"),
    ("Dots3NoteForCausalLM", "Dots3NoteForConditionalGeneration"),
    keys=(keys,),
    section=vision_section,
    assumes={
        "adapter_type": Assumed(("patch_merger",), null=True), "pre_pixel_shuffle": Assumed((True,), null=True),
        "router_scoring_func": Assumed(("sigmoid",)), "router_scale": Assumed((1,)), "temporal_patch_size": Assumed((1,)),
        "use_bias": Assumed((False,)), "use_qk_norm": Assumed((True,), null=True),
    },
    why_not=within("vision_encoder.", "audio_encoder."),
    rules=(
        *(
            Rule((f"v.blk.{{bid}}.{ours}_exps.weight",), (f"{_BLOCK}.mlp.experts.{{x}}.{theirs}.weight",), all_there)
            for theirs, ours in (("fc1", "ffn_gate"), ("fc2", "ffn_down"), ("fc3", "ffn_up"))
        ),
        *(
            Rule((f"a.blk.{{bid}}.ffn_gate{end}", f"a.blk.{{bid}}.ffn_up{end}"), (f"{_LAYER}.fc1{end}",), halves)
            for end in (".weight", ".bias")
        ),
    ),
    names={**_vision_names(), **_sound_names()},
    types={
        "*.ffn_gate_inp.weight": "F32", "*.exp_probs_b.weight": "F32", "a.conv2d.*": "F32", "a.conv_out.weight": "F32",
    },
)  # fmt: skip
