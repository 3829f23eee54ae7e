"""DSpark for DeepSeek V4: the blocks behind the others, which draft a block of tokens at once, with a head that corrects them."""

from __future__ import annotations

import re
from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from . import deepseek4
from ._deepseek4 import NEXTN_NAMES, NEXTN_RULES, counts
from ._draft import listens_to

_FURTHER = re.compile(r"mtp\.(\d+)\.(.+)")
#: what lies in one of the blocks but belongs to all
_SHARED = ("main_proj.", "main_norm.", "markov_head.", "confidence_head.", "norm.", "hc_head_")


def spelled(name: str, _config: Config) -> str:
    """``name`` of a block as DeepSeek V4's; marked where it is of the model that it helps."""
    found = _FURTHER.fullmatch(name)
    if found is None:
        return f"helped.{name}"
    inner = found[2]
    return inner if inner.startswith(_SHARED) else f"layers.{found[1]}.{inner}"


def n_blocks(c: Config) -> int:
    """How many blocks draft."""
    names = c.checkpoint.tensors if c.checkpoint is not None else ()
    return 1 + max((int(found[1]) for found in map(_FURTHER.match, names) if found), default=-1)


def blocks(m: Metadata, a: str, c: Config) -> None:
    """As many blocks as draft, none of which compresses keys or has a table of experts."""
    m.u32(f"{a}.block_count", n_blocks(c))


def uncompressed(m: Metadata, a: str, c: Config) -> None:
    """No block compresses its keys."""
    m.array(f"{a}.attention.compress_ratios", "INT32", [0] * n_blocks(c))


def drafting(m: Metadata, a: str, c: Config) -> None:
    """Experts by scores in all blocks; how many tokens are drafted at once, from which layers."""
    m.u32(f"{a}.hash_layer_count", 0)
    m.u32(f"{a}.block_size", c.integer("dspark_block_size"))
    listens_to(m, a, c, c.get("dspark_target_layer_ids"))


def mask(m: Metadata, _a: str, c: Config) -> None:
    """What stands for tokens that are to be drafted."""
    m.u32("tokenizer.ggml.mask_token_id", c.integer("dspark_noise_token_id"))


_BASE = deepseek4.FAMILY
_KEYS = {counts: blocks, deepseek4.attention: uncompressed, deepseek4.hashed: drafting}

FAMILY = replace(
    _BASE,
    arch="dflash",
    named_as="deepseek4",
    architectures=("DeepseekV4DSparkModel",),
    target="tokenizer",
    further=None,
    keys=tuple(_KEYS.get(key, key) for key in _BASE.keys),
    idle=(*_BASE.idle, "num_hash_layers"),
    token_keys=(mask, *_BASE.token_keys),
    spelled=spelled,
    drops={
        "helped.*": "of the model that it helps", "*.ffn.gate.bias_vl": "draft models do not see",
        "*.ffn.gate.tid2eid": "draft models choose experts by scores",
    },
    names={
        **{source: target for source, target in _BASE.names.items() if source not in NEXTN_NAMES},
        "main_proj": "fc", "main_norm": "enc.output_norm", "markov_head.markov_w1": "markov_w1",
        "markov_head.markov_w2": "markov_w2", "confidence_head.proj": "conf_proj",
    },
    rules=tuple(rule for rule in _BASE.rules if rule not in NEXTN_RULES),
)  # fmt: skip
