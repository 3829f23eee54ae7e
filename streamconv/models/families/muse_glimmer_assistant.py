"""The draft model of Muse Glimmer: DFlash as transformers saves it."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import class_defaults
from ..keys import BASE, sliding_window
from ..names import plain_name
from . import dflash
from ._draft import listens_to
from ._stated import numbers


def keys(m: Metadata, a: str, c: Config) -> None:
    """From which layers it drafts, and which of its own have a window."""
    listens_to(m, a, c, c.get("target_layer_ids"))
    if c.get("sliding_window") and c.get("layer_types"):
        sliding_window(m, a, c)
        kinds = [kind == "sliding_attention" for kind in c.get("layer_types")]
        m.array(f"{a}.attention.sliding_window_pattern", "BOOL", kinds)


def mask(m: Metadata, _a: str, c: Config) -> None:
    """What stands for tokens that are to be drafted."""
    if c.get("mask_token_id") is not None:
        m.u32("tokenizer.ggml.mask_token_id", c.integer("mask_token_id"))


FAMILY = replace(
    dflash.FAMILY,
    architectures=("MuseGlimmerAssistantModel",),
    section=lambda raw: raw,
    classes={"muse_glimmer_assistant": class_defaults(
        None, 131072, 6656, 19968, 5, 32, 8, head_dim=128, rms_norm_eps=1e-5, sliding_window=2048, block_size=16,
        mask_token_id=201818, target_layer_ids=[1, 13, 25, 37, 49], layer_types=lambda c: ["sliding_attention"] * c.n_layers,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )},
    variant=lambda family, _config: family,
    assumes={
        "hidden_act": GATED_SILU["hidden_act"],
        "rope_type": GATED_SILU["rope_type"],
        "attention_bias": Assumed((False,)),
    },
    idle=("layer_types",),
    keys=(*BASE, numbers({"block_size": "block_size"}), keys),
    token_keys=(mask,),
    spelled=lambda name, _config: plain_name(name),
    drops={},
    names={"encoder.fc": "fc", "encoder.output_norm_enc": "enc.output_norm"},
    rules=(),
    transforms={},
    types={},
)  # fmt: skip
