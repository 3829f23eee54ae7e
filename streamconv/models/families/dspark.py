"""DSpark: DFlash with a head that corrects each token of a block by the one before, and tokens of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..names import plain_name
from . import dflash
from ._draft import with_layer_config


def section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json with what is in the root where DFlash has it."""
    found = with_layer_config(raw)
    layers = found.get("aux_hidden_state_layer_ids")
    if isinstance(layers, list):  # counted from the embedding on
        listened: Any = [n - 1 if isinstance(n, int) else n for n in layers]
    else:
        listened = found.get("target_layer_ids")
    return {"dflash_config": {"target_layer_ids": listened, "mask_token_id": found.get("mask_token_id")}, **found}


def confidence(m: Metadata, a: str, c: Config) -> None:
    """Where drafting begins, and whether it says how sure it is."""
    anchored = "transformer_layer_config" not in c.raw and c.get("aux_hidden_state_layer_ids") is None
    stated = c.get("sample_from_anchor")
    m.boolean(f"{a}.sample_from_anchor", anchored if stated is None else bool(stated))
    names = c.checkpoint.tensors if c.checkpoint is not None else ()
    m.boolean(f"{a}.has_confidence_head", any("confidence_head.proj" in name for name in names))


def meant(family: Family, c: Config) -> Family:
    """With the tokens that it drafts, or with the head of the model it helps where these are all."""
    n_all = c.integer("vocab_size")
    n_own = c.integer("draft_vocab_size") if c.get("draft_vocab_size") else n_all
    if n_own > n_all:
        raise BadInput(f"{c.place}: 'draft_vocab_size' is {n_own}, more than the {n_all} of 'vocab_size'")
    names = c.checkpoint.tensors if c.checkpoint is not None else {}
    if n_own < n_all and names and "d2t" not in map(plain_name, names):
        raise BadInput(f"{c.folder}: there is no tensor 'd2t', which says which tokens its {n_own} are")
    head = {"model.lm_head.*": "the head of the model that it helps is used"} if n_own == n_all else {}
    return dflash.meant(replace(family, drops={**family.drops, **head}), c)


FAMILY = replace(
    dflash.FAMILY,
    architectures=("Qwen3DSparkModel", "DSparkDraftModel", "DSparkSpeculator", "Lfm2DSparkDraftModel", "LingDSparkModel"),
    section=section,
    variant=meant,
    assumes={**dflash.FAMILY.assumes, "markov_head_type": Assumed(("vanilla",))},
    idle=(*dflash.FAMILY.idle, "speculators_*", "transformer_layer_config", "*markov*", "*confidence*", "draft_vocab_size"),
    keys=(*dflash.FAMILY.keys, confidence),
    names={
        **dflash.FAMILY.names, "model.markov_head.markov_w1": "markov_w1", "model.markov_head.markov_w2": "markov_w2",
        "model.confidence_head.proj": "conf_proj",
    },
)  # fmt: skip
