"""LFM 2 Audio: a FastConformer, whose norms over batches are folded, and an adapter; what makes sound is left out."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._audio import sound_section
from ._sound_rows import batch_norm, one_pixel, squeezed_after
from ._vision import ears, kind, projector


def keys(m: Metadata, a: str, c: Config) -> None:
    """Sizes; runtimes take the width of a network inside a block from its tensors."""
    ears(m, c, c, feed_forward_length=c.hidden)
    kind("lfm2a")(m, a, c)
    m.u32("clip.audio.num_mel_bins", c.integer("feat_in"))
    m.f32("clip.audio.attention.layer_norm_epsilon", 1e-5)


def why_not(name: str) -> str | None:
    """What hears; the text model and what speaks are not part of it."""
    own = ("conformer.", "audio_adapter.", "audio_embedding.")
    return None if name.startswith(own) else "not part of the projector"


FAMILY = projector(
    ("lfm2a",),
    ("Lfm2AudioForConditionalGeneration",),
    keys=(keys,),
    section=sound_section("encoder"),
    assumes={
        "conv_norm_type": Assumed(("batch_norm",)), "subsampling": Assumed(("dw_striding",)), "xscaling": Assumed((False,)),
        "subsampling_factor": Assumed((8,)), "self_attention_model": Assumed(("rel_pos",)),
        "causal_downsampling": Assumed((False,)), "att_context_style": Assumed(("regular",)),
        "att_context_size": Assumed(([-1, -1],)), "reduction": Assumed(()),
    },
    why_not=why_not,
    drops={"*.num_batches_tracked": "of training"},
    spelled=lambda name, _config: name,
    rules=(batch_norm("conformer.layers.{bid}.conv.batch_norm", "a.blk.{bid}.conv_norm"),),
    transforms={
        "a.conv1d.*": one_pixel, "a.blk.*conv_pw*": squeezed_after(2), "a.blk.*conv_dw": squeezed_after(1),
    },
    types={"a.conv1d.*.weight": "F32", "a.blk.*.conv_*.weight": "F32"},
)  # fmt: skip
