"""Apertus: norms on heads, networks without gates whose activation has numbers of its own in each block."""

from __future__ import annotations

from dataclasses import replace

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import class_defaults
from ..names import plain_name
from . import llama

_NUMBERS = ("alpha_n", "alpha_p", "beta", "eps")


def activation(m: Metadata, a: str, c: Config) -> None:
    """The numbers of the activation, which loaders look for without the name of the architecture."""
    if c.checkpoint is None:
        return
    found = {plain_name(name): rows for name, rows in c.checkpoint.tensors.items() if ".act_fn." in name}
    for key in _NUMBERS:
        names = [f"model.layers.{n}.mlp.act_fn.{key}" for n in range(c.n_layers)]
        if missing := [name for name in names if name not in found]:
            raise BadInput(f"{c.checkpoint.path}: there is no tensor {missing[0]!r}", "Is this the whole checkpoint?")
        m.array(f"xielu.{key}", "FLOAT32", [float(found[name].read(0, 1)[0, 0]) for name in names])


FAMILY = replace(
    llama.FAMILY,
    arch="apertus",
    architectures=("ApertusForCausalLM",),
    classes={"apertus": class_defaults(
        131072, 65536, 4096, 14336, 32, 32, None, rms_norm_eps=1e-5, hidden_act="xielu", bos_token_id=1, eos_token_id=2,
        pad_token_id=3, rope_parameters={
            "rope_type": "llama3", "rope_theta": 12000000.0, "factor": 8.0, "original_max_position_embeddings": 8192,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    )},
    assumes={**GATED_SILU, "hidden_act": Assumed(("xielu",)), "post_norm": Assumed((False,)), "qk_norm": Assumed((True,))},
    keys=(activation, *llama.FAMILY.keys),
    drops={"*.mlp.act_fn.*": "its numbers are keys of the output"},
    transforms={},
)  # fmt: skip
