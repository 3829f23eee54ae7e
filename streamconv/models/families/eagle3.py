"""EAGLE-3: one layer of Llama that drafts for another model, from what three layers of that have computed."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ...sources.hf_config import flattened
from ..config import Config
from ..names import plain_name
from . import llama
from ._draft import OWN_TOKENS, listens_to, with_layer_config


def is_draft(c: Config) -> bool:
    """Whether config.json is that of a draft, whatever its class."""
    return "draft_vocab_size" in with_layer_config(c.raw) and c.n_layers == 1


def keys(m: Metadata, a: str, c: Config) -> None:
    """What the model it helps is like, and where norms are."""
    target = replace(c, values=flattened(c.target.config), checkpoint=c.target)
    layers = c.get("eagle_aux_hidden_state_layer_ids")
    if not layers:
        layers = [2, target.n_layers // 2, target.n_layers - 3]
    listens_to(m, a, c, layers, 0)
    m.u32(
        f"{a}.target_hidden_size",
        (target if c.get("target_hidden_size") is None else c).integer("target_hidden_size", "hidden_size"),
    )
    m.boolean(f"{a}.norm_before_residual", bool(c.get("norm_before_residual")))
    m.boolean(f"{a}.norm_before_fc", bool(c.get("norm_before_fc")))


def spelled(name: str, _config: Config) -> str:
    """``name`` with the one layer as block 0."""
    return plain_name(f"model.layers.0.{name.removeprefix('midlayer.')}" if name.startswith("midlayer.") else name)


FAMILY = replace(
    llama.FAMILY,
    arch="eagle3",
    named_as="llama",
    architectures=("LlamaForCausalLMEagle3", "Eagle3LlamaForCausalLM", "Eagle3Speculator", "Eagle3DraftModel"),
    section=with_layer_config,
    variant=lambda family, c: family if is_draft(c) else llama.FAMILY,
    target="tokenizer",
    assumes={key: value for key, value in llama.FAMILY.assumes.items() if key != "draft_vocab_size"},
    idle=("speculators_*", "transformer_layer_config", "eagle_config", "target_*", "draft_vocab_size"),
    keys=(keys, *llama.FAMILY.keys),
    spelled=spelled,
    drops={"t2d": "runtimes look tokens up the other way"},
    names={"fc": "fc", "input_norm": "enc.output_norm", "model.layers.{bid}.hidden_norm": "blk.{bid}.attn_norm_2"},
    rules=(*llama.FAMILY.rules, OWN_TOKENS),
    types={"d2t": "I64"},
)
