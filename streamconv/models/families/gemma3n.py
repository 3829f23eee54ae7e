"""Gemma 3n, text: four streams of residuals, low-rank shortcuts, embeddings of their own for layers, sparse activations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import NormalDist
from typing import Any

from ...errors import BadInput
from ...kit import Zeros, join
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import GELU_TANH, Assumed
from ..config import Config
from ..family import class_defaults
from ..keys import feed_forward_length, final_soft_cap
from ..names import plain_name
from ..rules import Rule
from . import gemma3
from ._layers import window_pattern
from .gemma import GEMMA_CLASS

_PROJECTIONS = {"altup_proj": "altup_projections", "altup_unembd_proj": "altup_unembed_projections"}


def _per_layer(c: Config, name: str) -> list[Any]:
    """A value for each layer; config.json may say one for all."""
    stated = c.get(name)
    found = list(stated) if isinstance(stated, list) else [stated] * c.n_layers
    if not all(isinstance(value, (int, float)) for value in found):
        raise BadInput(f"config.json: {name!r} does not list numbers")
    return found[: c.n_layers]


def _sparsity(share: float) -> float:
    """How many deviations above the mean an activation must lie for the others to be ``share`` of all."""
    if not 0 <= share < 1:
        raise BadInput(f"config.json: 'activation_sparsity_pattern' has {share}, which is no share")
    return NormalDist().inv_cdf(share) if share else -math.inf


def streams(m: Metadata, a: str, c: Config) -> None:
    """Streams, widths and sparsity of layers."""
    m.array(f"{a}.feed_forward_length", "INT32", _per_layer(c, "intermediate_size"))
    m.u32(f"{a}.altup.active_idx", c.integer("altup_active_idx"))
    m.u32(f"{a}.altup.num_inputs", c.integer("altup_num_inputs"))
    m.u32(f"{a}.embedding_length_per_layer_input", c.integer("hidden_size_per_layer_input"))
    m.u32(f"{a}.attention.shared_kv_layers", c.integer("num_kv_shared_layers"))
    shares = [_sparsity(share) for share in _per_layer(c, "activation_sparsity_pattern")]
    m.array(f"{a}.activation_sparsity_scale", "FLOAT32", shares)


def padded(rows: Rows, c: Config) -> Rows:
    """A table of tokens with rows of zeros up to the size of the vocabulary."""
    missing = c.integer("vocab_size") - rows.shape[0]
    return rows if missing <= 0 else join([rows, Zeros((missing, *rows.shape[1:]), rows.dtype)])


def spelled(name: str, _config: Config) -> str:
    """``name`` with the suffix that factors lack."""
    return plain_name(f"{name}.weight" if name.endswith("_scale") else name)


_ASSUMED: Mapping[str, Assumed] = {
    "altup_num_inputs": Assumed((4,)),
    "altup_correct_scale": Assumed((True,)),
    "hidden_size_per_layer_input": Assumed((256,), "runtimes take the embeddings of layers for 256 wide"),
    "laurel_rank": Assumed((64,), "runtimes take shortcuts for 64 wide"),
    "final_logit_softcapping": Assumed((30.0,), "runtimes cap logits at 30"),
}
FAMILY = replace(
    gemma3.FAMILY,
    arch="gemma3n",
    architectures=("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"),
    n_tokens=lambda c: c.integer("vocab_size"),
    classes={"gemma3n_text": class_defaults(
        262400, 32768, 2048, None, 35, 8, 2, head_dim=256, hidden_act=None, sliding_window=512, final_logit_softcapping=30.0,
        intermediate_size=lambda c: [16384] * c.n_layers,
        num_kv_shared_layers=15, hidden_size_per_layer_input=256, altup_num_inputs=4, altup_active_idx=0, laurel_rank=64,
        activation_sparsity_pattern=lambda c: [0.95] * 10 + [0.0] * (c.n_layers - 10) if c.n_layers > 10 else [0.0] * c.n_layers,
        rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}, **GEMMA_CLASS,
    )},
    assumes={**GELU_TANH, **_ASSUMED},
    idle=("altup_coef_clip", "vocab_size_per_layer_input"),
    keys=(
        *(key for key in gemma3.FAMILY.keys if key not in (feed_forward_length, gemma3.caps)), final_soft_cap, streams,
        window_pattern(5),
    ),
    spelled=spelled,
    rules=tuple(Rule((f"{name}.weight",), (f"model.{source}.{{x}}.weight",)) for name, source in _PROJECTIONS.items()),
    transforms={"token_embd": padded, "per_layer_token_embd": padded},
    misfits=("per_layer_*", "*.per_layer_*", "*.inp_gate.weight", "*.proj.weight", "*.laurel_?.weight"),
    cut_vocabulary=False,
)  # fmt: skip
